//! Asks a running gateway at its admin address, for the commands that need one.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::auth::jwt::key_fetch;
use crate::{files, json};

/// Longest time for a whole answer. A reload takes 30 s at most.
const LONGEST: Duration = Duration::from_secs(35);
/// Largest answer, in bytes.
const LARGEST: usize = 64 << 20;

/// The running gateway that a command asks.
#[derive(clap::Args)]
pub(super) struct AdminOption {
    /// Admin address of the gateway, such as `10.0.0.5:9900`, or its URL.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "GATEWAY_ADMIN",
        default_value = "127.0.0.1:9900"
    )]
    admin: String,
    /// File with the token of `admin.token_file`, or with that of `admin.read_token_file` for commands that only read.
    #[arg(long, value_name = "FILE", env = "GATEWAY_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// An answer of the gateway.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Returns the body as JSON, or null.
    pub(super) fn json(&self) -> Value {
        json::typed(&self.body, LARGEST).unwrap_or_default()
    }

    /// Returns the body of a success, or what is wrong.
    ///
    /// # Errors
    /// The sentence of the problem document, and its list of what is wrong.
    pub(super) fn ok(self) -> Result<Value, String> {
        let body = self.json();
        if (200..300).contains(&self.status) {
            return Ok(body);
        }
        let title = body["title"].as_str().unwrap_or("it is refused");
        let mut text = format!("{title}. {}", self.problem());
        for wrong in body["errors"].as_array().map_or(&[][..], Vec::as_slice) {
            text.push_str(&format!("\n  {}", wrong.as_str().unwrap_or_default()));
        }
        Err(text)
    }

    /// Returns the sentence that says what is wrong: that of the problem document, or the status.
    pub(super) fn problem(&self) -> String {
        let body = self.json();
        match body["detail"].as_str().or_else(|| body["title"].as_str()) {
            Some(text) => text.to_owned(),
            None => format!("it answers {}", self.status),
        }
    }
}

/// Returns a text as a segment of a path, or as a value in a query.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// Returns rows as lines whose columns are as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut page = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line: Vec<_> = cells.collect();
        page.push_str(line.join("  ").trim_end());
        page.push('\n');
    }
    page
}

impl AdminOption {
    /// Sends a GET.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(Method::GET, path, None, None)
    }

    /// Sends a POST, with a body of JSON if there is one.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    pub(super) fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        self.send(Method::POST, path, body, None)
    }

    /// Sends a change. `condition` is the tag that the entry must have, or `none` if there must be no entry.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    pub(super) fn change(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        condition: Option<&str>,
    ) -> Result<Answer, String> {
        let method = method.parse().map_err(|_| "no method".to_owned())?;
        self.send(method, path, body, condition)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        condition: Option<&str>,
    ) -> Result<Answer, String> {
        let (origin, token) = (self.origin(), self.token()?);
        let asked = async {
            let request = key_fetch::client()?.request(method, format!("{origin}{path}"));
            let mut request = request.timeout(LONGEST);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            match condition {
                Some("none") => request = request.header("if-none-match", "*"),
                Some(tag) => request = request.header("if-match", tag),
                None => {}
            }
            let mut answer = request.send().await?;
            let (status, mut body) = (answer.status().as_u16(), Vec::new());
            while let Some(piece) = answer.chunk().await? {
                body.extend_from_slice(&piece);
                if body.len() > LARGEST {
                    return Ok(None);
                }
            }
            Ok::<_, reqwest::Error>(Some(Answer { status, body }))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        match runtime.block_on(asked) {
            Ok(Some(answer)) if answer.status == 401 => Err(format!(
                "{origin} wants a token; name the file that holds it: --token-file FILE"
            )),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(format!("{origin} answers with more than {LARGEST} bytes")),
            Err(error) if error.is_connect() => Err(format!(
                "no gateway answers at {origin}; name its admin address: --admin ADDRESS"
            )),
            Err(error) if error.is_timeout() => Err(format!("{origin} does not answer within {LONGEST:?}")),
            Err(error) => Err(format!("{origin} does not answer like a gateway: {error}")),
        }
    }

    /// Returns scheme and authority of the admin address.
    fn origin(&self) -> String {
        let admin = self.admin.trim_end_matches('/');
        match admin.contains("://") {
            true => admin.to_owned(),
            false => format!("http://{admin}"),
        }
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let content = files::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(Some(String::from_utf8_lossy(&content.bytes).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_url() {
        let origin = |admin: &str| {
            let admin = admin.to_owned();
            AdminOption {
                admin,
                token_file: None,
            }
            .origin()
        };
        assert_eq!(origin("10.0.0.5:9900"), "http://10.0.0.5:9900");
        assert_eq!(origin("[::1]:9900"), "http://[::1]:9900");
        assert_eq!(origin("https://edge.example/"), "https://edge.example");
    }

    #[test]
    fn a_problem_is_a_sentence() {
        let problem = |status, body: &str| {
            let body = body.as_bytes().to_vec();
            Answer { status, body }.problem()
        };
        assert_eq!(
            problem(404, r#"{"title": "No", "detail": "There is none."}"#),
            "There is none."
        );
        assert_eq!(problem(404, r#"{"title": "No"}"#), "No");
        assert_eq!(problem(502, "<html>"), "it answers 502");
    }
}
