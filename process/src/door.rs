//! The door of every listener: every connection takes a place in a [`Crowd`], and goes when that is needed.

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

use crate::crowd::{Crowd, Guest};

/// Gives every connection its place among all, before anything is read of it, and ends it when its place is needed.
#[derive(Clone)]
pub struct Doorkeeper(pub Arc<Crowd>);

impl<S> Accept<TcpStream, S> for Doorkeeper {
    type Stream = Seated;
    type Service = Known<S>;
    type Future = Ready<io::Result<(Seated, Known<S>)>>;

    fn accept(&self, stream: TcpStream, calls: S) -> Self::Future {
        ready(self.seat(stream).map(|seated| {
            let guest = Arc::clone(&seated.guest);
            (seated, Known { calls, guest })
        }))
    }
}

impl Doorkeeper {
    fn seat(&self, stream: TcpStream) -> io::Result<Seated> {
        stream.set_nodelay(true)?;
        let guest = Arc::new(self.0.enter(1, stream.peer_addr()?.ip()));
        let gone = Box::pin(guest.gone().clone().cancelled_owned());
        Ok(Seated { stream, guest, spoke: false, gone })
    }
}

/// A connection's calls; each has the connection's [`Guest`] among its extensions.
#[derive(Clone)]
pub struct Known<S> {
    calls: S,
    guest: Arc<Guest>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Known<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.guest));
        self.calls.call(request)
    }
}

/// A stream that breaks off when its place is needed.
pub struct Seated {
    stream: TcpStream,
    guest: Arc<Guest>,
    spoke: bool,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.spoke && buffer.filled().len() > before {
            self.spoke = true;
            self.guest.spoke();
        }
        read
    }
}

impl AsyncWrite for Seated {
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
