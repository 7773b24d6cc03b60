//! Writes the operational log to stderr: actions of the gateway and changes of its state.
//!
//! The log reports changes such as a reload, an opened breaker or a drain. Single requests are in the access log only.
//! Lines that peers can cause at will, including those of panics, are sampled ([`LogSampler`]).

use std::error::Error;
use std::io;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::log_sampler::LogSampler;

/// Environment variable with the log filter, such as `debug` or `info,gateway::plan=trace`.
pub const FILTER_VARIABLE: &str = "GATEWAY_LOG";
const DEFAULT_FILTER: &str = "info";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts the log of the process. Without `filter`, the value of [`FILTER_VARIABLE`] is used, or else `info`.
///
/// # Errors
/// Returns an error if the filter is invalid or the process already has a log.
pub fn start(format: Format, filter: Option<&str>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let variable = std::env::var(FILTER_VARIABLE).ok().filter(|value| !value.is_empty());
    let filter = filter.or(variable.as_deref()).unwrap_or(DEFAULT_FILTER);
    subscriber(format, filter, io::stderr, LogSampler::of_process())?.try_init()?;
    log_panics();
    Ok(())
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    writer: W,
    sampler: &'static LogSampler,
) -> Result<Box<dyn Subscriber + Send + Sync>, Box<dyn Error + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry();
    Ok(match format {
        Format::Text => Box::new(
            registry
                .with(lines.with_target(false).with_filter(sampler))
                .with(filter),
        ),
        Format::Json => {
            let lines = lines.json().flatten_event(true);
            Box::new(registry.with(lines.with_filter(sampler)).with(filter))
        }
    })
}

/// Writes panics to the log. Otherwise the runtime writes each of them to stderr, without sampling.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let (thread, place) = (thread.name().unwrap_or("unnamed"), panic.location());
        let place = place.map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(thread, place, "a bug, panicked: {message}");
    }));
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json, "info");
        let line: Value = serde_json::from_str(text.trim_end()).expect("one object");
        assert_eq!((&line["level"], &line["backend"]), (&"WARN".into(), &"users".into()));
        assert_eq!(line["message"], "breaker opened");
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        assert!(logged(Format::Text, "warn").contains("breaker opened"));
        assert_eq!(logged(Format::Text, "error"), "");
        assert!(logged(Format::Text, "debug").contains("a detail"));
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_an_error() {
        let sampler = LogSampler::of_process();
        assert!(subscriber(Format::Text, "gateway=loud", io::sink, sampler).is_err());
    }

    fn logged(format: Format, filter: &str) -> String {
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl Write for Memory {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(format, filter, move || writer.clone(), LogSampler::of_process()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(backend = "users", "breaker opened");
            tracing::debug!("a detail");
        });
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}
