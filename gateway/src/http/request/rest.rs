//! What a route leaves unread of a request's body.
//!
//! A server that closes a connection while the client still sends makes the client's system drop the answer, so that a
//! browser reports a reset instead of the refusal. So a bounded rest is read and thrown away before the answer is
//! sent; behind a longer one the answer says `Connection: close`. Invariant: a client that waits for `100 Continue` gets
//! it only from a route that reads the body.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::Response,
};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

/// The longest rest that is read: some photographs by a client that does not know our limit.
const LONGEST: u64 = 8 << 20;
/// How long that may take. A client on a slower line may see a reset.
const WITHIN: Duration = Duration::from_secs(5);

/// The rest of a body that was lent to a route, once the route has dropped it.
pub struct Rest(Arc<Mutex<Option<Left>>>);

struct Left {
    body: Body,
    /// The client waits for `100 Continue`, and nobody has asked for the body.
    is_awaited: bool,
}

/// A body that comes back when it is dropped before its end.
struct Lent {
    left: Option<Left>,
    rest: Arc<Mutex<Option<Left>>>,
}

/// Lends the request's body to the routes. `None`: it has none.
pub fn lend(request: &mut Request) -> Option<Rest> {
    if request.body().is_end_stream() {
        return None;
    }
    let is_awaited = request.headers().contains_key(header::EXPECT);
    let rest = Arc::new(Mutex::new(None));
    let body = std::mem::take(request.body_mut());
    let lent = Lent { left: Some(Left { body, is_awaited }), rest: rest.clone() };
    *request.body_mut() = Body::new(lent);
    Some(Rest(rest))
}

impl Rest {
    /// Reads what is left, within bounds, and says so in the answer if the connection must be closed. A body that did not
    /// come in time, so that the request `is_late`, will not come now.
    pub async fn settle(self, response: &mut Response, is_late: bool) {
        let Some(left) = self.0.lock().take() else { return };
        let is_late = is_late || response.status() == StatusCode::REQUEST_TIMEOUT;
        if is_late || left.is_awaited || !drained(left.body).await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whether all of the body could be read.
async fn drained(mut body: Body) -> bool {
    if body.size_hint().lower() > LONGEST {
        return false;
    }
    let read = async {
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            length += frame.data_ref().map_or(0, |data| data.len() as u64);
            if length > LONGEST {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(WITHIN, read).await.unwrap_or(false)
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(left) = &mut self.left else { return Poll::Ready(None) };
        left.is_awaited = false;
        let polled = Pin::new(&mut left.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.left = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left.as_ref().is_none_or(|left| left.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.as_ref().map_or_else(|| SizeHint::with_exact(0), |left| left.body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let left = self.left.take().filter(|left| !left.body.is_end_stream());
        *self.rest.lock() = left;
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    /// What the answer says about the connection after a route has read `read` frames of the body.
    async fn connection(body: Body, expect: bool, read: usize) -> Option<HeaderValue> {
        let mut request = Request::new(body);
        if expect {
            request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        let rest = lend(&mut request)?;
        let mut body = request.into_body();
        for _ in 0..read {
            drop(body.frame().await);
        }
        drop(body);
        let mut response = StatusCode::PAYLOAD_TOO_LARGE.into_response();
        rest.settle(&mut response, false).await;
        response.headers().get(header::CONNECTION).cloned()
    }

    fn frames(count: u64, bytes: usize) -> Body {
        let frame = move |_| Ok::<_, std::convert::Infallible>(Bytes::from(vec![0; bytes]));
        Body::from_stream(futures_util::stream::iter((0..count).map(frame)))
    }

    #[tokio::test]
    async fn a_bounded_rest_is_read_and_behind_a_longer_one_the_connection_is_closed() {
        let close = Some(HeaderValue::from_static("close"));
        assert_eq!(connection(Body::empty(), false, 0).await, None);
        for read in [0, 1, 3, 4] {
            assert_eq!(connection(frames(3, 1 << 20), false, read).await, None, "{read} of 3 frames");
        }
        assert_eq!(connection(Body::from(vec![0; 3 << 20]), false, 0).await, None);
        assert_eq!(connection(Body::from(vec![0; 9 << 20]), false, 0).await, close);
        assert_eq!(connection(frames(9, 1 << 20), false, 0).await, close);
    }

    #[tokio::test]
    async fn nobody_is_told_to_send_a_body_that_nobody_wants() {
        let close = Some(HeaderValue::from_static("close"));
        assert_eq!(connection(frames(1, 10), true, 0).await, close);
        assert_eq!(connection(frames(1, 10), true, 1).await, None, "the route has asked for it");
    }
}
