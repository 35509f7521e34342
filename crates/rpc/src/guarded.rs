//! A response body that holds its permit until its end, and ends with a status when its time is over.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

/// Resolves when the body must end, to the status that it ends with.
pub(crate) type End = Pin<Box<dyn Future<Output = Status> + Send>>;

/// See the module.
pub(crate) struct Guarded {
    inner: Option<tonic::body::Body>,
    end: End,
    permit: Option<OwnedSemaphorePermit>,
}

impl Guarded {
    /// Guards `inner` until `end`.
    pub(crate) fn new(inner: tonic::body::Body, end: End, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner: Some(inner), end, permit }
    }

    fn finish(&mut self) {
        self.inner = None;
        self.permit = None;
    }
}

impl Body for Guarded {
    type Data = <tonic::body::Body as Body>::Data;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        // The end first: a producer that is always ready must not outrun it.
        if let Poll::Ready(status) = this.end.as_mut().poll(cx) {
            this.finish();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        let polled = Pin::new(inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this.finish();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}
