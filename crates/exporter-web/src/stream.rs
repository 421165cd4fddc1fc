//! Deadlines under a connection: for its next request, for the headers, and for a client that does not read.
//!
//! A stream under hyper sees every byte, so this is where slowness shows. When a deadline passes, the read or write
//! fails and hyper closes the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::registry::{Conversation, Stage};
use super::settings::HttpSettings;

/// A stream with its deadlines.
#[derive(Debug)]
pub(crate) struct Watched<Stream> {
    stream: Stream,
    conversation: Arc<Conversation>,
    header_deadline: Duration,
    idle_deadline: Duration,
    write_deadline: Duration,
    write_rate: u64,
    /// The alarm for reading and the stage it is set for.
    reading: Pin<Box<Sleep>>,
    reading_for: Option<Stage>,
    /// Set while the client does not take what is ready for it.
    writing: Option<Pin<Box<Sleep>>>,
    /// When the present answer began to go out, and how much of it has.
    answer: Option<(Instant, u64)>,
}

impl<Stream> Watched<Stream> {
    pub(crate) fn new(stream: Stream, conversation: Arc<Conversation>, settings: &HttpSettings) -> Self {
        Self {
            stream,
            conversation,
            header_deadline: settings.header_deadline,
            idle_deadline: settings.idle_deadline,
            write_deadline: settings.write_deadline,
            write_rate: settings.write_rate.max(1),
            reading: Box::pin(sleep(settings.idle_deadline)),
            reading_for: None,
            writing: None,
            answer: None,
        }
    }

    /// Fails when the deadline of a stage of reading has passed.
    fn check_reading(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let stage = self.conversation.stage();
        let deadline = match stage {
            Stage::Waiting => self.idle_deadline,
            Stage::Head => self.header_deadline,
            // The body, the handler and the answer have deadlines of their own.
            Stage::Body | Stage::Handling | Stage::Writing | Stage::Stalled => {
                self.reading_for = None;
                return Poll::Pending;
            }
        };
        if self.reading_for != Some(stage) {
            self.reading_for = Some(stage);
            self.reading.as_mut().reset(Instant::now() + deadline);
        }
        ready!(self.reading.as_mut().poll(context));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client took too long to send a request"))
    }

    /// Notes what the client took, or that it took nothing; fails when it takes too little.
    fn check_writing(&mut self, context: &mut Context<'_>, taken: Option<usize>) -> Poll<io::Error> {
        let now = Instant::now();
        let (since, sent) = self.answer.get_or_insert((now, 0));
        if let Some(taken) = taken {
            *sent += taken as u64;
            if self.writing.take().is_some() {
                self.conversation.enter(Stage::Writing);
            }
            let allowed = self.write_deadline + Duration::from_secs(*sent / self.write_rate);
            if now.duration_since(*since) > allowed {
                return Poll::Ready(too_slow());
            }
            return Poll::Pending;
        }
        if self.writing.is_none() {
            self.conversation.enter(Stage::Stalled);
        }
        let deadline = self.write_deadline;
        let alarm = self.writing.get_or_insert_with(|| Box::pin(sleep(deadline)));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(too_slow())
    }

    /// Turns the outcome of a write into one that knows deadlines.
    fn written(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let taken = match &outcome {
            Poll::Ready(Ok(taken)) => Some(*taken),
            Poll::Ready(Err(_)) => return outcome,
            Poll::Pending => None,
        };
        match self.check_writing(context, taken) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => outcome,
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long to read the answer")
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Watched<Stream> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        if outcome.is_ready() {
            if buffer.filled().len() > before && this.conversation.stage() == Stage::Waiting {
                this.conversation.enter(Stage::Head);
            }
            return outcome;
        }
        this.check_reading(context).map(Err)
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for Watched<Stream> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        this.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        match &outcome {
            Poll::Ready(Ok(())) => {
                this.answer = None;
                this.writing = None;
                this.conversation.flushed();
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return this.check_writing(context, None).map(Err),
        }
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_shutdown(context);
        if outcome.is_pending() {
            return this.check_writing(context, None).map(Err);
        }
        outcome
    }
}
