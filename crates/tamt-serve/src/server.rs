//! From an address to answers: connections, threads, and the end.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tamt::buffers::PassBuffers;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;

use crate::app::App;
use crate::compute;
use crate::error::{Error, Result};
use crate::http::router;
use crate::memory::{self, CONNECTION_BUFFER};
use crate::models::{Models, Served};
use crate::queue::Queue;
use crate::settings::{MOST_INPUTS, Settings};

/// Most threads on which connections wait.
const MOST_IO_THREADS: usize = 4;

/// The pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The time in which open connections may still send a request that they had begun when the server was told to end.
const GRACE: Duration = Duration::from_millis(500);

/// How often the server looks whether all connections have ended, within [`GRACE`].
const LOOK: Duration = Duration::from_millis(10);

/// The time in which the operating system tells of a connection that it has accepted.
const TOLD: Duration = Duration::from_millis(10);

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    address: SocketAddr,
    app: Arc<App>,
    buffers: PassBuffers,
}

/// The request to end a server.
#[derive(Clone, Debug)]
pub struct Ending(watch::Sender<bool>);

impl Ending {
    /// Tells the server to accept no more connections, to answer what it has taken, and to end.
    pub fn end(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Listens at an address, and prepares the buffers of the largest batches.
    ///
    /// # Errors
    /// [`Error::Bind`]; [`Error::Setting`] if a limit is out of its range.
    pub fn bind(address: &str, models: Models, settings: Settings) -> Result<Self> {
        check(&settings, &models)?;
        let failed = |source| Error::Bind { address: address.to_owned(), source };
        let listener = StdListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?;
        let app = Arc::new(App::new(models, settings));
        let buffers = compute::warm_up(&app);
        if let Some(resident) = memory::resident() {
            // The bound is unset up to here.
            let _ = app.memory_bound.set(resident.saturating_add(memory::of_requests(&app.settings)));
        }
        Ok(Self { listener, address: own, app, buffers })
    }

    /// The address, with the port that the operating system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most resident memory that this process takes while it serves, in bytes; `None` where the operating system does
    /// not tell how much it takes now.
    pub fn memory_bound(&self) -> Option<u64> {
        self.app.memory_bound.get().copied()
    }

    /// The request to end this server.
    pub fn ending(&self) -> Ending {
        Ending(self.app.ending.clone())
    }

    /// Serves until [`Ending::end`] and the last answer. The engine computes on the calling thread and on those of its
    /// `rayon` pool. Returns the number of answered requests, whatever their status.
    ///
    /// # Errors
    /// [`Error::Threads`].
    pub fn run(self) -> Result<u64> {
        let Self { listener, app, buffers, .. } = self;
        let threads = app.settings.threads;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.clamp(1, MOST_IO_THREADS))
            .max_blocking_threads(threads.max(1))
            .thread_name("http")
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::Threads)?;
        let own = app.clone();
        let serve = move || {
            let _closing = Closing(own.queue.clone());
            runtime.block_on(serve(&own, listener))
        };
        let http = thread::Builder::new().name("http".to_owned()).spawn(serve).map_err(Error::Threads)?;
        compute::run(&app, buffers);
        let ended = http.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
        ended.map_err(Error::Threads)?;
        Ok(app.metrics.requests())
    }
}

/// Closes the queue, also where the thread of the connections panics, so that the engine's thread ends.
struct Closing(Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Checks limits that depend on the models or on each other.
fn check(settings: &Settings, models: &Models) -> Result<()> {
    let refused = |name, reason: String| Err(Error::Setting { name, reason });
    let longest = models.all.iter().map(Served::max_length).max().unwrap_or(0);
    if settings.max_queue_tokens < longest {
        let reason = format!("a text may have {longest} tokens, which do not fit the queue");
        return refused("max-queue-tokens", reason);
    }
    if settings.max_inputs > MOST_INPUTS {
        return refused("max-inputs", format!("it is at most {MOST_INPUTS}"));
    }
    let widest = models.all.iter().map(Served::width).max().unwrap_or(0);
    let least = memory::BODY.saturating_mul(settings.max_body_bytes).saturating_add(memory::ANSWERED * widest);
    if settings.max_queue_bytes < least {
        let reason = format!("the largest body and the vector of one text take {least} bytes");
        return refused("max-queue-bytes", reason);
    }
    Ok(())
}

/// Accepts connections until the end is asked for, then answers what has been taken.
async fn serve(app: &Arc<App>, listener: StdListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(app.settings.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut ending = app.ending.subscribe();
    let connections = Connections { app: app.clone(), router: router(app), graceful: GracefulShutdown::new() };
    loop {
        tokio::select! {
            biased;
            _ = ending.wait_for(|is_ending| *is_ending) => break,
            accepted = accept(&listener, &room) => match accepted {
                Ok((stream, place)) => connections.open(stream, place),
                Err(_) => {
                    app.metrics.accept_failures.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    // Clients whose connection the operating system has accepted have been promised an answer.
    while let Ok(Ok((stream, place))) = tokio::time::timeout(TOLD, accept(&listener, &room)).await {
        connections.open(stream, place);
    }
    drop(listener);
    let ends_at = Instant::now() + GRACE;
    while app.metrics.connections.load(Ordering::SeqCst) > 0 && Instant::now() < ends_at {
        tokio::time::sleep(LOOK).await;
    }
    connections.graceful.shutdown().await;
    Ok(())
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// What connections need.
struct Connections {
    app: Arc<App>,
    router: Router,
    graceful: GracefulShutdown,
}

impl Connections {
    /// Serves a connection on a task of its own.
    fn open(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        let app = self.app.clone();
        // Answers are written whole, so that waiting for more bytes to send only costs time.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(app.settings.write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.settings.read_timeout)
            .max_buf_size(CONNECTION_BUFFER)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(self.router.clone()));
        let connection = self.graceful.watch(connection);
        app.metrics.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            // A connection that breaks concerns no other one.
            let _ = connection.await;
            app.metrics.connections.fetch_sub(1, Ordering::SeqCst);
            drop(place);
        });
    }
}
