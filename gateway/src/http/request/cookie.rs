//! The cookie that holds the refresh token.
//!
//! Invariants: scripts can't read it (`HttpOnly`), other sites' pages don't send it (`SameSite=Strict`), and only the
//! routes of `/v1/auth` get it.

use http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

const NAME: &str = "refreshToken";

/// Cookies of our name that are looked at. We set one; a page of a sibling domain can plant more.
const MOST: usize = 4;

/// The refresh tokens that the browser sent, each once, at most `MOST`.
pub fn refresh_tokens(headers: &HeaderMap) -> Vec<SecretString> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found: Vec<&str> = Vec::new();
    for (_, token) in pairs.filter(|(name, token)| *name == NAME && !token.is_empty()) {
        if found.len() < MOST && !found.contains(&token) {
            found.push(token);
        }
    }
    found.into_iter().map(SecretString::from).collect()
}

/// The `Set-Cookie` that stores the token.
pub fn set(token: &SecretString, max_age_s: u64, secure: bool) -> Option<HeaderValue> {
    header_value(token.expose_secret(), max_age_s, secure)
}

/// The `Set-Cookie` that removes the token.
pub fn clear(secure: bool) -> Option<HeaderValue> {
    header_value("", 0, secure)
}

fn header_value(token: &str, max_age_s: u64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{NAME}={token}; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age={max_age_s}{secure}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether the cookie must be `Secure`. It must, except over plain HTTP on the developer's own machine, where some
/// browsers would not keep it.
pub fn is_secure(headers: &HeaderMap, plain_http: bool) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    !(plain_http && host.is_some_and(is_local))
}

fn is_local(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_has_exactly_these_attributes() {
        let set = set(&"abc".into(), 604_800, true).unwrap();
        assert_eq!(
            set.to_str().unwrap(),
            "refreshToken=abc; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age=604800; Secure"
        );
    }

    #[test]
    fn only_plain_http_on_this_machine_is_spared() {
        let check = |host: &'static str, plain_http: bool, expected: bool| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_secure(&headers, plain_http), expected, "{host} {plain_http}");
        };
        check("localhost:8080", true, false);
        check("127.0.0.1:8080", true, false);
        check("[::1]:8080", true, false);
        check("localhost", false, true);
        check("chat.example", true, true);
        check("localhost.evil.example", true, true);
        assert!(is_secure(&HeaderMap::new(), true));
    }

    #[test]
    fn ours_is_found_among_others_and_each_of_our_name_is_tried() {
        let check = |cookies: &[&'static str], expected: &[&str]| {
            let cookie = |cookie: &&'static str| (header::COOKIE, HeaderValue::from_static(cookie));
            let found = refresh_tokens(&cookies.iter().map(cookie).collect());
            let found: Vec<&str> = found.iter().map(ExposeSecret::expose_secret).collect();
            assert_eq!(found, expected, "{cookies:?}");
        };
        check(&["a=b; refreshToken=t=1; c=d"], &["t=1"]);
        check(&["xrefreshToken=t", "refreshToken=", ""], &[]);
        check(&["refreshToken=planted; refreshToken=ours", "refreshToken=ours"], &["planted", "ours"]);
        let many = "refreshToken=1; refreshToken=2; refreshToken=3; refreshToken=4; refreshToken=5";
        check(&[many], &["1", "2", "3", "4"]);
    }
}
