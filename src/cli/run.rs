//! `vestibule run`: serves until it is told to stop.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::app::process::{Signals, raise_open_files};
use crate::app::start::{Basics, StartError, start};
use crate::base::clock::Clock;
use crate::cli::MISTAKES;
use crate::cli::args::RunOptions;
use crate::cli::output::{chain, complain};
use crate::config::load::{Loaded, load};
use crate::config::mistake::Report;
use crate::proxy::report::Reports;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;

pub(super) fn run(options: &RunOptions) -> ExitCode {
    let loaded = match load(&options.config.config) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            complain(format_args!(
                "the configuration cannot be used\n\n{}",
                Report(&mistakes)
            ));
            return ExitCode::from(MISTAKES);
        }
    };
    let metrics = Metrics::new(loaded.settings.telemetry.worst_tenants);
    let logging = match Logging::install(&loaded.settings.telemetry, &metrics) {
        Ok(logging) => Arc::new(logging),
        Err(error) => {
            complain(chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let ended = control_runtime()
        .map_err(|error| chain(&error))
        .and_then(|runtime| {
            raise_open_files();
            let basics = Basics {
                clock: Clock::system(),
                metrics,
                reports: Reports::none(),
            };
            runtime
                .block_on(serve(loaded, Arc::clone(&logging), basics))
                .map_err(|error| chain(&error))
        });
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(text);
            ExitCode::FAILURE
        }
    };
    // Written out to the last line.
    drop(logging);
    code
}

/// The runtime of everything but the workers: store, certificates, control.
pub(super) fn control_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("control")
        .worker_threads(2)
        .enable_all()
        .build()
}

async fn serve(loaded: Loaded, logging: Arc<Logging>, basics: Basics) -> Result<(), StartError> {
    let mut signals = Signals::install().map_err(StartError::of_signals)?;
    let serving = start(loaded, logging, basics).await?;
    signals.stop().await;
    serving.stop(&mut signals).await;
    Ok(())
}
