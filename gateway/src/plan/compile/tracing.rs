//! Compiles the export of traces.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use reqwest::Url;

use crate::config::{self, At, Code, Mistake};
use crate::observe::traces::{Share, TraceSettings};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::named_files;

const SAMPLE: &str = "write `http://collector:4318/v1/traces`";
/// Port of OTLP over gRPC, which is another protocol.
const GRPC_PORT: u16 = 4317;

/// Returns what is exported; `None` without tracing, or after a mistake.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Option<Arc<TraceSettings>> {
    let config::Tracing {
        otlp,
        sample,
        tail,
        service,
    } = compiler.config.tracing.as_ref()?;
    let config::Otlp {
        url,
        headers_file,
        time_limit,
    } = otlp;
    let headers = match headers_file {
        Some(file) => {
            named_files::doubt_secret(compiler, file);
            named_files::read_file(compiler, file).and_then(|content| fields(compiler, file, &content))
        }
        None => Some(Vec::new()),
    };
    let address = address(compiler, url, "tracing.otlp.url", SAMPLE)?;
    if address.path() == "/" {
        let message = "`tracing.otlp.url`: the address has no path";
        let mistake = Mistake::new(Code::BadValue, url.span(), message);
        compiler.mistake(mistake.hint("most collectors take traces at `/v1/traces`"));
        return None;
    }
    if address.port() == Some(GRPC_PORT) {
        let message = "`tracing.otlp.url`: 4317 is usually the port for gRPC; this sends JSON over HTTP";
        let doubt = Mistake::new(Code::Doubtful, url.span(), message).hint("that of HTTP is 4318");
        compiler.warnings.push(doubt);
    }
    Some(Arc::new(TraceSettings {
        url: address,
        headers: headers?,
        time_limit: **time_limit,
        sample: Share::new(sample.get()),
        tail: **tail,
        service: service.value.clone(),
    }))
}

/// Returns an address that is sent to. `setting` is its path in the config, `sample` a hint at a good one.
pub(super) fn address(compiler: &mut Compiler<'_>, written: &At<String>, setting: &str, sample: &str) -> Option<Url> {
    let wrong = |why: String, hint: &str| {
        Mistake::new(Code::BadValue, written.span(), format!("`{setting}`: {why}")).hint(hint.to_owned())
    };
    let url = match Url::parse(written) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => url,
        Ok(_) => {
            compiler.mistake(wrong("it begins with `http://` or `https://`".to_owned(), sample));
            return None;
        }
        Err(error) => {
            compiler.mistake(wrong(format!("this is not a URL: {error}"), sample));
            return None;
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        let hint = "write `authorization: Basic ...` to a file, and name it as `headers_file`";
        compiler.mistake(wrong("a URL with a password is shown in logs".to_owned(), hint).secret());
        return None;
    }
    Some(url)
}

/// Reads header fields, one `name: value` a line. Empty lines and those that begin with `#` say nothing.
pub(super) fn fields(
    compiler: &mut Compiler<'_>,
    file: &At<PathBuf>,
    content: &[u8],
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let text = String::from_utf8_lossy(content);
    let mut fields = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let field = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name.trim()).ok()?, value))
        });
        let Some(field) = field else {
            // The line may hold a secret, so it is not shown.
            let message = format!("line {number} of {} is no header field", file.display());
            compiler.mistake(Mistake::new(Code::BadValue, file.span(), message).hint("write `name: value`"));
            return None;
        };
        fields.push(field);
    }
    Some(fields)
}
