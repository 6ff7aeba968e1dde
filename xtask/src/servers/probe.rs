//! Asking a server or a service over HTTP how it is.

use std::time::Duration;

/// The status and body of a GET, if anything answers in time.
pub fn http_get(url: &str, timeout: Duration) -> Option<(u16, String)> {
    let config =
        ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).build();
    let mut response = ureq::Agent::from(config).get(url).call().ok()?;
    let status = response.status().as_u16();
    Some((status, response.body_mut().read_to_string().unwrap_or_default()))
}
