//! `gateway init`: writes a config to begin with.

use std::fs::File;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::PathBuf;

use super::{FAILED, OK};

const STARTER: &str = include_str!("starter.yaml");

#[derive(clap::Args)]
pub(super) struct Options {
    /// The file to write, which must not exist yet.
    #[arg(value_name = "FILE", default_value = "gateway.yaml")]
    file: PathBuf,
}

/// Writes the file and says what to do with it. Returns the exit code.
pub(super) fn init(options: &Options) -> u8 {
    let file = options.file.display();
    let created = File::options().write(true).create_new(true).open(&options.file);
    match created.and_then(|mut created| created.write_all(STARTER.as_bytes())) {
        Ok(()) => {
            let _ = writeln!(
                stdout(),
                "{file} is written: name your service in it, then\n  gateway check {file}\n  gateway run {file}"
            );
            OK
        }
        Err(error) => {
            let why = match error.kind() {
                ErrorKind::AlreadyExists => "it exists already and stays as it is".to_owned(),
                _ => error.to_string(),
            };
            let _ = writeln!(stderr(), "gateway init: {file}: {why}");
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::STARTER;
    use crate::config;

    fn mistakes(text: &str) -> Option<String> {
        let loaded = config::parse("gateway.yaml", text, Path::new("."), &|_| None);
        loaded.err().map(|invalid| invalid.render(false))
    }

    #[test]
    fn it_is_good_as_it_is() {
        assert_eq!(mistakes(STARTER), None);
    }

    /// A commented key that is misspelt would be a mistake once somebody uncomments it.
    #[test]
    fn every_commented_key_exists() {
        let uncommented: String = STARTER
            .lines()
            .map(|line| {
                let bare = line.trim_start();
                let is_yaml =
                    bare.starts_with("# ") && !bare.ends_with('.') && bare.contains(": ") | bare.ends_with(':');
                match is_yaml && !bare.contains('`') && !bare.contains("yaml-language-server") {
                    true => line.replacen("# ", "", 1) + "\n",
                    false => line.to_owned() + "\n",
                }
            })
            .collect();
        let told = mistakes(&uncommented).unwrap_or_default();
        assert!(!told.contains("has no key"), "{told}\n{uncommented}");
        assert!(
            uncommented.matches("\n  home:").count() == 1 && uncommented.contains("\ntenants:"),
            "{uncommented}"
        );
    }
}
