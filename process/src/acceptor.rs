//! The acceptor of every listener: each connection holds a permit of a [`CapacityLimiter`], and is closed when that is
//! evicted.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use http::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower::Service;

use crate::limiter::{CapacityLimiter, Permit};

/// Acquires a permit for each connection before anything is read from it.
#[derive(Clone)]
pub struct LimitingAcceptor(pub Arc<CapacityLimiter>);

impl<S> Accept<TcpStream, S> for LimitingAcceptor {
    type Stream = LimitedStream;
    type Service = PermitService<S>;
    type Future = Ready<io::Result<(LimitedStream, PermitService<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.limited(stream).map(|stream| {
            let permit = Arc::clone(&stream.permit);
            (stream, PermitService { service, permit })
        }))
    }
}

impl LimitingAcceptor {
    fn limited(&self, stream: TcpStream) -> io::Result<LimitedStream> {
        stream.set_nodelay(true)?;
        let permit = Arc::new(self.0.acquire(1, stream.peer_addr()?.ip()));
        let evicted = Box::pin(permit.evicted().clone().cancelled_owned());
        Ok(LimitedStream { stream, permit, received_data: false, evicted })
    }
}

/// The service of one connection; adds the connection's [`Permit`] to the extensions of each request.
#[derive(Clone)]
pub struct PermitService<S> {
    service: S,
    permit: Arc<Permit>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for PermitService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.permit));
        self.service.call(request)
    }
}

/// A stream that fails once its permit is evicted.
pub struct LimitedStream {
    stream: TcpStream,
    permit: Arc<Permit>,
    received_data: bool,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.evicted.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.received_data && buffer.filled().len() > before {
            self.received_data = true;
            self.permit.note_data();
        }
        read
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
