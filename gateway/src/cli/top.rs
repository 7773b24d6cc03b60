//! `gateway top`: what a running gateway does now, drawn anew every second.
//!
//! Without a terminal it prints one frame. Rates are those between two looks at the admin API.

mod frame;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::thread;
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};

use self::frame::{Sample, Size};
use super::admin_client::AdminOption;
use super::{FAILED, OK};
use crate::clock;

/// Sequences of a terminal (ECMA-48 and its private modes): the other screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first column of the first line; and what erases the rest of the screen.
const HOME: &str = "\x1b[H";
const REST: &str = "\x1b[J";

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
    /// Print one frame and end.
    #[arg(long)]
    once: bool,
    /// Seconds between two frames.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    every: u16,
}

/// Draws until SIGINT. Returns the exit code.
pub(super) fn top(options: &Options) -> u8 {
    let every = Duration::from_secs(options.every.into());
    let is_live = !options.once && stdout().is_terminal();
    match (is_live, look(&options.admin)) {
        (_, Err(why)) => failed(&why),
        (true, Ok(first)) => live(options, first, every),
        (false, Ok(first)) => {
            thread::sleep(every);
            match look(&options.admin) {
                Ok(second) => {
                    let size = Size::default();
                    let _ = stdout().write_all(frame::draw(&first, &second, size, false).as_bytes());
                    OK
                }
                Err(why) => failed(&why),
            }
        }
    }
}

fn live(options: &Options, first: Sample, every: Duration) -> u8 {
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if let Err(error) = leave_at_signal() {
        return failed(&error.to_string());
    }
    let mut before = first;
    write(&format!("{ENTER}{HOME}{REST}"));
    loop {
        let begun = clock::now();
        let now = match look(&options.admin) {
            Ok(now) => now,
            Err(why) => {
                write(LEAVE);
                return failed(&why);
            }
        };
        let drawn = frame::draw(&before, &now, size(), has_colors);
        // Each line erases what the frame before had behind it.
        let drawn = drawn.trim_end_matches('\n').replace('\n', "\x1b[K\r\n");
        write(&format!("{HOME}{drawn}\x1b[K{REST}"));
        before = now;
        thread::sleep(every.saturating_sub(clock::now().since(begun)));
    }
}

fn look(admin: &AdminOption) -> Result<Sample, String> {
    let ask = |path: &str| {
        let answer = admin.get(path)?;
        match answer.status {
            200 => Ok(answer.json()),
            _ => Err(answer.problem()),
        }
    };
    Ok(Sample {
        status: ask("/api/v1/status")?,
        routes: ask("/api/v1/routes?limit=100")?,
        backends: ask("/api/v1/backends?limit=100")?,
        groups: ask("/api/v1/rejections/groups?limit=50")?,
        taken: clock::now(),
    })
}

/// Returns the size of the terminal.
fn size() -> Size {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size {
            columns: size.ws_col.into(),
            lines: size.ws_row.into(),
        },
        _ => Size::default(),
    }
}

/// Ends the process at SIGINT or SIGTERM, with the terminal as it was.
fn leave_at_signal() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut end) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = end.recv() => {}
            }
        });
        write(LEAVE);
        std::process::exit(OK.into());
    })?;
    Ok(())
}

fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn failed(why: &str) -> u8 {
    let _ = writeln!(stderr(), "gateway top: {why}");
    FAILED
}
