//! Where a request comes from: the `Origin` of a browser's page, and the address of a client behind proxies.
//!
//! Invariants: a forwarding header is believed only if the peer is a trusted proxy. The client is the last address in
//! it that is no trusted proxy, since the client may have written all that stands before that address. An origin is our
//! own if scheme, host and port are ours.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use url::{Position, Url};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[derive(Debug, Clone, clap::Args)]
pub struct OriginSettings {
    /// Origins of web pages that may use this server beside its own, e.g. `https://chat.example`.
    #[arg(long = "allowed-origins", env = "MT_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed: Vec<Url>,
    /// Addresses or networks of proxies whose forwarding header is believed, e.g. `10.0.0.0/8`.
    #[arg(long = "trusted-proxies", env = "MT_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which those proxies name the client.
    #[arg(long, env = "MT_FORWARDED_HEADER", value_enum, default_value_t = ForwardedHeader::XForwardedFor)]
    pub forwarded_header: ForwardedHeader,
}

/// The header that the proxies write. Only one is read: a proxy that writes one of them passes the other on as the
/// client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ForwardedHeader {
    XForwardedFor,
    Forwarded,
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text} is neither an address nor a network"))
}

/// The allowed origins and the trusted proxies.
#[derive(Debug, Clone)]
pub struct Origins {
    allowed: Vec<String>,
    trusted: Vec<IpNet>,
    header: ForwardedHeader,
}

impl Origins {
    pub fn new(settings: &OriginSettings) -> Self {
        let allowed = settings.allowed.iter().map(|url| url.origin().ascii_serialization()).collect();
        Self { allowed, trusted: settings.trusted_proxies.clone(), header: settings.forwarded_header }
    }

    /// The allowed foreign origins, in the form in which browsers send them.
    pub fn foreign(&self) -> &[String] {
        &self.allowed
    }

    /// Whether it is a foreign origin whose pages may use this server.
    pub fn is_foreign(&self, origin: &[u8]) -> bool {
        self.allowed.iter().any(|allowed| allowed.as_bytes() == origin)
    }

    /// Whether the request may be served: it comes from no page, from one of our own, or from an allowed origin.
    pub fn allowed(&self, headers: &HeaderMap, peer: IpAddr) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next().map(|origin| origin.to_str().unwrap_or_default());
        if origins.next().is_some() {
            return false;
        }
        if origin.is_some_and(|origin| self.allowed.iter().any(|allowed| allowed == origin)) {
            return true;
        }
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.to_str().unwrap_or_default());
        let is_same_origin = match site {
            // The browser has compared the origins itself, and knows the scheme that it used.
            Some("same-origin") => true,
            // No page: somebody typed the address, or no browser says what it is.
            Some("none") | None => false,
            Some(_) => return false,
        };
        let Some(origin) = origin else { return true };
        let Ok(origin) = Url::parse(origin) else { return false };
        let scheme = if is_same_origin { None } else { self.scheme(headers, peer) };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        scheme.is_none_or(|scheme| scheme == origin.scheme())
            && host.is_some_and(|host| same_host(&origin, host))
    }

    /// The address of the client: the peer's own, or the one that a trusted proxy names.
    pub fn client_address(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for hop in self.hops(headers).iter().rev() {
            match hop {
                Some(address) if self.trusts(*address) => client = *address,
                Some(address) => return *address,
                // The hop is obfuscated or broken, so nobody vouches for the addresses before it.
                None => return client,
            }
        }
        client
    }

    /// Whether the client spoke plain HTTP, as far as we know.
    pub fn is_plain_http(&self, headers: &HeaderMap, peer: IpAddr) -> bool {
        self.scheme(headers, peer) != Some("https")
    }

    /// The scheme that the client used. We speak nothing but plain HTTP, but a trusted proxy may have ended the client's
    /// TLS, and says so. `None`: such a proxy does not say.
    fn scheme(&self, headers: &HeaderMap, peer: IpAddr) -> Option<&'static str> {
        if !self.trusts(peer.to_canonical()) {
            return Some("http");
        }
        let said = match self.header {
            ForwardedHeader::XForwardedFor => headers.get(X_FORWARDED_PROTO)?.to_str().ok()?,
            ForwardedHeader::Forwarded => {
                let values =
                    headers.get_all(header::FORWARDED).iter().filter_map(|value| value.to_str().ok());
                let elements: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
                let is_proxy = |element: &&&str| forwarded_for(element).is_some_and(|hop| self.trusts(hop));
                // The element about the client itself, written by the first of our proxies.
                let about = elements.iter().rev().find(|element| !is_proxy(element)).or(elements.first())?;
                forwarded(about, "proto")?
            }
        };
        ["http", "https"].into_iter().find(|scheme| said.eq_ignore_ascii_case(scheme))
    }

    /// Whether it is the address of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The addresses in the forwarding header, the client's first; `None` for an entry that is no address.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        let name = match self.header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => header::FORWARDED,
        };
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let hops = values.flat_map(|value| value.split(','));
        match self.header {
            ForwardedHeader::XForwardedFor => hops.map(|hop| address(hop.trim())).collect(),
            ForwardedHeader::Forwarded => hops.map(forwarded_for).collect(),
        }
    }
}

/// Whether an origin has the host and port that the request was sent to. A missing port is the scheme's default.
fn same_host(origin: &Url, host: &str) -> bool {
    let Ok(own) = Url::parse(&format!("{}://{host}/", origin.scheme())) else { return false };
    matches!(origin.scheme(), "http" | "https")
        && origin[Position::BeforeHost..Position::AfterPort] == own[Position::BeforeHost..Position::AfterPort]
}

/// The `for` of one element of RFC 7239's `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    address(forwarded(element, "for")?)
}

/// A parameter of one element of RFC 7239's `Forwarded`.
fn forwarded<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value.trim().trim_matches('"'))
}

/// Parses an address with or without a port. An IPv6 address with a port stands in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    let parsed = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
    parsed.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn origins(allowed: &[&str], trusted: &[&str], header: ForwardedHeader) -> Origins {
        Origins::new(&OriginSettings {
            allowed: allowed.iter().map(|url| url.parse().unwrap()).collect(),
            trusted_proxies: trusted.iter().map(|text| network(text).unwrap()).collect(),
            forwarded_header: header,
        })
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        all
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9));
    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn foreign_origins_are_refused() {
        let check = |origin: &'static str, host: &'static str, expected: bool| {
            let origins = origins(&["https://chat.example"], &[], ForwardedHeader::XForwardedFor);
            let headers = headers(&[("origin", origin), ("host", host)]);
            assert_eq!(origins.allowed(&headers, PEER), expected, "{origin} at {host}");
        };
        check("https://chat.example", "api.example", true);
        check("http://api.example", "api.example", true);
        check("http://api.example:80", "api.example", true);
        check("http://localhost:8080", "localhost:8080", true);
        check("http://localhost:8081", "localhost:8080", false);
        check("https://localhost:8080", "localhost:8080", false);
        check("http://chat.example", "api.example", false);
        check("https://evil.example", "api.example", false);
        check("http://api.example.evil", "api.example", false);
        check("null", "api.example", false);
        check("file://api.example", "api.example", false);
        check("https://chat.example:8443", "api.example", false);
        let origins = origins(&["https://chat.example"], &[], ForwardedHeader::XForwardedFor);
        assert!(origins.allowed(&headers(&[("host", "api.example")]), PEER));
        let twice =
            [("host", "api.example"), ("origin", "http://api.example"), ("origin", "https://chat.example")];
        assert!(!origins.allowed(&headers(&twice), PEER));
    }

    #[test]
    fn the_scheme_is_the_one_that_the_client_used() {
        let check = |header, said: &'static [(&'static str, &'static str)], origin, peer, expected: bool| {
            let origins = origins(&[], &["10.0.0.0/8"], header);
            let mut all = headers(&[("origin", origin), ("host", "api.example")]);
            all.extend(headers(said));
            assert_eq!(origins.allowed(&all, peer), expected, "{origin} {said:?}");
        };
        use ForwardedHeader::{Forwarded, XForwardedFor};
        let (plain, secure) = ("http://api.example", "https://api.example");
        check(XForwardedFor, &[("x-forwarded-proto", "https")], secure, PROXY, true);
        check(XForwardedFor, &[("x-forwarded-proto", "https")], plain, PROXY, false);
        check(XForwardedFor, &[("x-forwarded-proto", "http")], secure, PROXY, false);
        check(XForwardedFor, &[("x-forwarded-proto", "https")], secure, PEER, false);
        // A trusted proxy that does not say.
        check(XForwardedFor, &[], secure, PROXY, true);
        check(XForwardedFor, &[], plain, PROXY, true);
        const CHAIN: &[(&str, &str)] =
            &[("forwarded", "for=6.6.6.6;proto=http, for=1.1.1.1;proto=https, for=10.0.0.2;proto=http")];
        check(Forwarded, CHAIN, secure, PROXY, true);
        check(Forwarded, CHAIN, plain, PROXY, false);
    }

    #[test]
    fn what_the_browser_says_about_the_page_counts() {
        let check = |site: &'static str, origin: Option<&'static str>, expected: bool| {
            let origins = origins(&["https://chat.example"], &[], ForwardedHeader::XForwardedFor);
            let mut all = headers(&[("sec-fetch-site", site), ("host", "api.example")]);
            all.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))));
            assert_eq!(origins.allowed(&all, PEER), expected, "{site} {origin:?}");
        };
        check("none", None, true);
        check("same-origin", None, true);
        check("same-site", None, false);
        check("cross-site", None, false);
        check("?", None, false);
        check("cross-site", Some("https://chat.example"), true);
        check("same-site", Some("http://api.example"), false);
        // A proxy that we know nothing of has ended the TLS.
        check("same-origin", Some("https://api.example"), true);
        check("same-origin", Some("https://evil.example"), false);
    }

    #[test]
    fn the_last_untrusted_hop_is_the_client() {
        let check = |header, value: &'static str, peer: &str, expected: &str| {
            let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
            let origins = origins(&[], &["10.0.0.0/8", "::1"], header);
            let found = origins.client_address(&headers(&[(name, value)]), peer.parse().unwrap());
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{value} from {peer}");
        };
        use ForwardedHeader::{Forwarded, XForwardedFor};
        check(XForwardedFor, "1.1.1.1", "9.9.9.9", "9.9.9.9");
        check(XForwardedFor, "1.1.1.1", "10.0.0.1", "1.1.1.1");
        check(XForwardedFor, "6.6.6.6, 1.1.1.1, 10.0.0.2", "10.0.0.1", "1.1.1.1");
        check(XForwardedFor, "10.0.0.3", "10.0.0.1", "10.0.0.3");
        check(XForwardedFor, "1.1.1.1:4711", "::ffff:10.0.0.1", "1.1.1.1");
        check(XForwardedFor, "6.6.6.6, what", "10.0.0.1", "10.0.0.1");
        check(XForwardedFor, "", "10.0.0.1", "10.0.0.1");
        check(Forwarded, r#"for=6.6.6.6, for="[2001:db8::1]:80";proto=https"#, "::1", "2001:db8::1");
        check(Forwarded, "proto=https;For=1.1.1.1", "10.0.0.1", "1.1.1.1");
        check(Forwarded, "for=_hidden", "10.0.0.1", "10.0.0.1");
    }
}
