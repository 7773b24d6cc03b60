//! A headless Chromium, driven over its DevTools protocol.
//!
//! Tests that need it are skipped where there is none, which a line on standard error tells; with `REQUIRE_CHROMIUM=1`
//! they fail instead. `CHROMIUM` names another program.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{eventually, within};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Longest time for a browser to start, or to answer, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs in each page before its own scripts: notes what goes wrong, and the title after each snapshot with the number of
/// open breakers that the snapshot tells.
const WATCH: &str = r#"
    window.wrong = [];
    window.titles = [];
    addEventListener("error", (event) => wrong.push(String(event.message)));
    addEventListener("unhandledrejection", (event) => wrong.push(String(event.reason)));
    document.addEventListener("securitypolicyviolation", (event) => wrong.push(`${event.violatedDirective} ${event.blockedURI}`));
    const listen = EventSource.prototype.addEventListener;
    EventSource.prototype.addEventListener = function (name, take) {
        return listen.call(this, name, name !== "snapshot" ? take : (event) => {
            take(event);
            titles.push([JSON.parse(event.data).status.breakers.open, document.title]);
        });
    };
"#;

/// A page in a browser of its own. Dropping it kills the browser.
pub(crate) struct Page {
    browser: Child,
    _profile: TempDir,
    socket: WebSocketStream<TcpStream>,
    session: String,
    sent: u64,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

/// Returns the browser to use; `None` if there is none, and then the test is over.
fn program() -> Option<PathBuf> {
    let named = env::var_os("CHROMIUM").map(PathBuf::from);
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = named.or_else(|| {
        let names =
            env::split_paths(&paths).flat_map(|folder| [folder.join("chromium"), folder.join("chromium-browser")]);
        names.into_iter().find(|path| path.is_file())
    });
    if found.is_none() {
        let is_required = env::var_os("REQUIRE_CHROMIUM").is_some_and(|value| value != "0");
        assert!(!is_required, "REQUIRE_CHROMIUM is set, but there is no chromium");
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no chromium in PATH");
    }
    found
}

impl Page {
    /// Opens the address in a window of this width; `None` if there is no browser.
    pub(crate) async fn open(url: &str, width: u32) -> Option<Self> {
        let program = program()?;
        let profile = tempfile::tempdir().expect("a folder");
        let browser = Command::new(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--disable-extensions",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--no-proxy-server",
            ])
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let port_file = profile.path().join("DevToolsActivePort");
        let (port, path) = eventually(LIMIT, "the browser listens", || async {
            let told = fs::read_to_string(&port_file).ok()?;
            let (port, path) = told.split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.trim().to_owned()))
        })
        .await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let room = WebSocketConfig::default()
            .max_message_size(Some(64 << 20))
            .max_frame_size(Some(64 << 20));
        let (socket, _) = client_async_with_config(format!("ws://127.0.0.1:{port}{path}"), stream, Some(room))
            .await
            .expect("it speaks WebSocket");
        let mut page = Self {
            browser,
            _profile: profile,
            socket,
            session: String::new(),
            sent: 0,
        };
        let target = page.ask("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.ask("Target.attachToTarget", attach).await;
        attached["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut page.session);
        page.ask("Page.enable", json!({})).await;
        page.ask("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH }))
            .await;
        page.resize(width, false).await;
        page.visit(url).await;
        Some(page)
    }

    /// Sets the width of the window in pixels, and the colours that the operator prefers.
    pub(crate) async fn resize(&mut self, width: u32, is_dark: bool) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", media).await;
    }

    /// Loads the address, or the page anew.
    pub(crate) async fn visit(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url })).await;
        self.until("document.body?.dataset.link === 'live'").await;
    }

    /// Returns the value of an expression, awaited.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let told = self.ask("Runtime.evaluate", asked).await;
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told:#}");
        told["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let begun = tokio::time::Instant::now();
        while self.eval(expression).await != true {
            if begun.elapsed() > LIMIT {
                let shown = self
                    .eval("document.title + '\\n' + document.body.innerText + '\\n' + wrong.join('\\n')")
                    .await;
                panic!(
                    "not within {LIMIT:?}: {expression}\n{}",
                    shown.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Clicks the element that the selector finds first, as a mouse does.
    pub(crate) async fn click(&mut self, selector: &str) {
        let find = format!(
            "(() => {{ const found = document.querySelector({selector:?}); found.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const box = found.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.eval(&find).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.ask("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Presses a key that is not a character.
    pub(crate) async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            "/" => (191, "/"),
            _ => panic!("{key} is not known"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.ask("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types into the element that has the focus.
    pub(crate) async fn write(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text })).await;
    }

    /// Checks that no script failed and that the policy of the page forbade nothing.
    pub(crate) async fn expect_nothing_wrong(&mut self) {
        assert_eq!(self.eval("wrong").await, json!([]));
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut asked = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            asked["sessionId"] = self.session.clone().into();
        }
        self.socket
            .send(Message::text(asked.to_string()))
            .await
            .expect("it listens");
        let answer = async {
            loop {
                let message = self.socket.next().await.expect("it goes on").expect("a message");
                let Message::Text(text) = message else { continue };
                let told: Value = serde_json::from_str(&text).expect("JSON");
                if told["id"] == id {
                    break told;
                }
            }
        };
        let told = within(LIMIT, method, answer).await;
        assert!(told["error"].is_null(), "{method}: {told:#}");
        told["result"].clone()
    }
}
