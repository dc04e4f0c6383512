//! `vestibule demo`: the main job on this machine, with nothing else installed. It writes the configuration a user
//! would write, and starts the same program on it.

mod place;
mod sample;
mod story;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::app::process::{Signals, raise_open_files};
use crate::app::serving::Serving;
use crate::app::start::{Basics, start};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::cli::args::DemoOptions;
use crate::cli::output::{chain, complain, line};
use crate::cli::run::control_runtime;
use crate::config::load::{Loaded, load};
use crate::config::mistake::Report;
use crate::config::settings::root_file;
use crate::model::certificate::CaId;
use crate::proxy::report::{HandshakeReport, Reports};
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;

use place::{Folder, Ports};

/// Handshakes that may wait to be printed.
const MOST_LINES: usize = 1024;
/// The CA's name in the demo's configuration.
const CA: &str = "demo";

pub(super) fn demo(options: &DemoOptions) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(text);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &DemoOptions) -> Result<(), String> {
    let said = |error: std::io::Error| chain(&error);
    let folder = Folder::open(options.data.as_deref()).map_err(said)?;
    let runtime = control_runtime().map_err(said)?;
    let tasks = Tasks::new();
    runtime.block_on(async {
        let mut signals = Signals::install().map_err(said)?;
        let application = sample::start(&tasks).await.map_err(said)?;
        let ports = Ports::choose().map_err(said)?;
        let stage = Stage {
            folder: &folder,
            ports,
            application,
        };
        let (serving, lines) = Box::pin(stage.raise()).await?;
        let root = root_file(&place::data(folder.path()), &CaId::new(CA));
        line(story::opening(&root, &stage.ports, application));
        tell(lines, &mut signals).await;
        line("Ending: running requests may finish.");
        serving.stop(&mut signals).await;
        tasks.cancel();
        Ok(())
    })
}

struct Stage<'a> {
    folder: &'a Folder,
    ports: Ports,
    application: SocketAddr,
}

impl Stage<'_> {
    async fn raise(&self) -> Result<(Serving, mpsc::Receiver<HandshakeReport>), String> {
        let path = place::write_configuration(self.folder.path(), &self.ports, self.application);
        let loaded = configuration(&path.map_err(|error| chain(&error))?)?;
        let metrics = Metrics::new(loaded.settings.telemetry.worst_tenants);
        let logging = Logging::install(&loaded.settings.telemetry, &metrics);
        let logging = Arc::new(logging.map_err(|error| chain(&error))?);
        raise_open_files();
        let (reports, lines) = Reports::watched(MOST_LINES);
        let basics = Basics {
            clock: Clock::system(),
            metrics,
            reports,
        };
        let serving = start(loaded, logging, basics)
            .await
            .map_err(|error| chain(&error))?;
        Ok((serving, lines))
    }
}

fn configuration(path: &Path) -> Result<Loaded, String> {
    load(path).map_err(|mistakes| format!("the demo's configuration\n\n{}", Report(&mistakes)))
}

/// Prints a line for each handshake until the program is asked to stop.
async fn tell(mut lines: mpsc::Receiver<HandshakeReport>, signals: &mut Signals) {
    loop {
        tokio::select! {
            Some(report) = lines.recv() => line(story::line(&report)),
            () = signals.stop() => return,
        }
    }
}
