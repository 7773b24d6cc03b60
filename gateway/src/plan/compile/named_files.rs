//! Reads the files that the config names, and warns of those that others can read or write.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{At, Code, Mistake, Span, for_missing_file};
use crate::files::{Exposure, Others};
use crate::plan::compile::compiler::Compiler;

/// Warns if everyone can read or write a secret, such as a private key. Access by its group is allowed.
pub(super) fn doubt_secret(compiler: &mut Compiler<'_>, file: &At<PathBuf>) {
    doubt(compiler, file, file.span(), |found| Exposure {
        readable: found.readable.filter(|others| *others == Others::Everyone),
        ..by_everyone(found)
    });
}

/// Warns if everyone can change a file that controls access.
pub(super) fn doubt_writers(compiler: &mut Compiler<'_>, file: &Path, at: Option<Span>) {
    doubt(compiler, file, at, by_everyone);
}

fn by_everyone(found: Exposure) -> Exposure {
    Exposure {
        writable: found.writable.filter(|others| *others == Others::Everyone),
        replaceable: found.replaceable,
        ..Exposure::default()
    }
}

pub(super) fn doubt(
    compiler: &mut Compiler<'_>,
    file: &Path,
    at: Option<Span>,
    concerning: impl FnOnce(Exposure) -> Exposure,
) {
    let found = compiler.sources.reader().exposure(file).map(concerning);
    if let Some(found) = found.filter(|found| !found.is_none()) {
        let message = format!("{} is open to others: {found}", file.display());
        compiler.warnings.push(
            Mistake::new(Code::Doubtful, at, message).hint("`chmod 600` it, in a folder that others cannot write"),
        );
    }
}

/// Checks that those of the files can be read that no section has read, because the entries that name them have
/// mistakes.
pub(super) fn check_others(compiler: &mut Compiler<'_>, files: &[At<PathBuf>]) {
    if compiler.unsound.is_empty() {
        return;
    }
    for file in files {
        let is_reported = compiler.mistakes.iter().any(|mistake| mistake.at == file.span());
        if !is_reported && !compiler.files.contains(&file.value) {
            let _ = read(compiler, file);
        }
    }
}

/// Reads a file that the config names.
pub(super) fn read_file(compiler: &mut Compiler<'_>, path: &At<PathBuf>) -> Option<Arc<[u8]>> {
    compiler.look_after(path);
    read(compiler, path)
}

fn read(compiler: &mut Compiler<'_>, path: &At<PathBuf>) -> Option<Arc<[u8]>> {
    let read = compiler.sources.reader().read(&path.value);
    read.map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        let mut mistake = Mistake::new(Code::Unreadable, path.span(), message);
        if error.kind() == ErrorKind::NotFound {
            mistake.hint = Some(for_missing_file(path));
        }
        compiler.mistake(mistake);
    })
    .ok()
}

impl Compiler<'_> {
    /// Registers a file before it is read, so that a change of it compiles the config again.
    pub(super) fn look_after(&mut self, file: &At<PathBuf>) {
        doubt_writers(self, file, file.span());
        self.files.push(file.value.clone());
    }
}
