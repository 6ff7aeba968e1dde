//! The `Host` of a request (RFC 9112, 3.2).
//!
//! Invariant: nothing behind this check sees a request that names two hosts, which a proxy in front and we could read
//! differently.

use axum::extract::Request;
use http::{HeaderValue, Version, header, uri::Authority};
use shared::code::Code;

use crate::http::answer::problem::Problem;

/// Checks that the request names one host, in whatever places it does.
///
/// # Errors
/// `request.malformed`.
pub fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let malformed = || Problem::new(Code::RequestMalformed).detail("Host: one name, with a port or without");
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => authority(host).ok_or_else(malformed)?,
        // HTTP/1.0 knows no hosts.
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        _ => return Err(malformed()),
    };
    let target = request.uri().authority();
    if target.is_some_and(|target| !target.as_str().eq_ignore_ascii_case(host.as_str())) {
        return Err(malformed());
    }
    Ok(())
}

fn authority(host: &HeaderValue) -> Option<Authority> {
    // More than this a URI's authority may hold, but no name of a host.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    host.to_str().ok().filter(|text| text.bytes().all(is_plain))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_one_host() {
        let check = |version, uri: &str, hosts: &[&str], expected: bool| {
            let mut request = Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            assert_eq!(check(&request.body(()).unwrap()).is_ok(), expected, "{uri} {hosts:?}");
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        for good in ["api.example", "api.example:8080", "127.0.0.1:1", "[::1]:8080", "xn--bcher-kva.example"]
        {
            check(new, "/", &[good], true);
            check(old, "/", &[good], true);
        }
        for bad in ["", "a b", "a@b", "a/b", "a,b", "[::1", "a:b:c"] {
            check(new, "/", &[bad], false);
            check(old, "/", &[bad], false);
        }
        check(new, "/", &[], false);
        check(old, "/", &[], true);
        check(new, "/", &["a", "a"], false);
        check(new, "http://API.example/", &["api.example"], true);
        check(new, "http://evil.example/", &["api.example"], false);
    }
}
