//! The command line. `run`, `demo`, `check`, `doctor`, `backup`, `restore` and `health` work by themselves; everything
//! else is a client of a running instance's control API.

pub mod args;

pub mod output;

mod run;

mod demo;

mod by_hand;

pub mod client;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::app::process::keep_memory_private;
use args::{Arguments, Command};
use client::ClientCommand;
use output::{chain, complain};

/// Exit code for mistakes of the command line or the configuration.
const MISTAKES: u8 = 2;

/// Parses `arguments` (the program's name first) and does what they say.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Err(error) = keep_memory_private() {
        complain(format_args!(
            "the system does not let this process keep its memory private: {error}"
        ));
        return ExitCode::FAILURE;
    }
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(answer) => return explain(&answer),
    };
    match parsed.command {
        Command::Run(options) => run::run(&options),
        Command::Demo(options) => demo::demo(&options),
        Command::Check(options) => by_hand::check(&options),
        Command::Doctor(options) => by_hand::doctor(&options),
        Command::Backup(options) => by_hand::backup(&options),
        Command::Restore(options) => by_hand::restore(&options),
        Command::Health(options) => by_hand::health(&options),
        Command::Client(command) => ask(&command),
    }
}

/// What a shell reports of a program that wrote to a pipe without a reader.
const READER_GONE: u8 = 141;

fn ask(command: &ClientCommand) -> ExitCode {
    match client::execute(command, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Like `head`, which has read enough: nothing to complain about, but what was asked may not be done to its end.
        Err(error) if error.is_reader_gone() => ExitCode::from(READER_GONE),
        Err(error) => {
            complain(chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and version go to standard output with exit code 0; mistakes to standard error with 2.
fn explain(answer: &clap::Error) -> ExitCode {
    // A closed standard output is nothing to complain about.
    drop(answer.print());
    ExitCode::from(if answer.use_stderr() { MISTAKES } else { 0 })
}
