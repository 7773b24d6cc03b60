//! Connects to the store, and checks that it can do what is needed before anything is counted there.
//!
//! The name is resolved anew for each connection, or the sentinels or nodes are asked anew, so a primary that took over is
//! found.
//! The password is read anew too. What is checked: that the scripts are known, that the store takes writes, and that it
//! answers within the call limit.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::call::{Connection, Replies, send};
use super::cluster;
use super::command::MOST_EXACT;
use super::presence;
use super::scripts::{Common, Script, read_epoch};
use super::settings::{Password, ServerAddress, StoreSettings};
use super::spread::{SpreadKeys, text};
use super::state::Eviction;
use super::trouble::{Failure, Trouble};
use crate::clock;
use crate::files;

/// Most addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Task that moves the bytes of a connection. The connection ends with it.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Connection that can be used.
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) epoch: u64,
    pub(super) eviction: Option<Eviction>,
}

/// Longest time to ask one sentinel.
const SENTINEL_LIMIT: Duration = Duration::from_millis(200);

/// Opens a connection and logs in. The driver has to run for anything to be answered.
pub(super) async fn open(settings: &StoreSettings) -> Result<(Connection, Driver), Failure> {
    let login = login(settings).await?;
    if settings.address.is_cluster {
        let connection = cluster::open(settings, &login).await?;
        // The library runs it.
        return Ok((Connection::Cluster(connection), Box::pin(std::future::pending())));
    }
    let server = match &settings.address.primary {
        Some(primary) => find_primary(settings, primary).await?,
        None => settings
            .address
            .servers
            .first()
            .cloned()
            .ok_or_else(|| unreached("no server"))?,
    };
    let (connection, driver) = open_one(settings, &server, &login).await?;
    Ok((Connection::Server(connection), driver))
}

async fn open_one(
    settings: &StoreSettings,
    server: &ServerAddress,
    login: &RedisConnectionInfo,
) -> Result<(MultiplexedConnection, Driver), Failure> {
    let stream = dial(server).await.map_err(unreached)?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    if settings.address.is_tls {
        let tls = settings.tls.clone().ok_or_else(|| unreached("no TLS settings"))?;
        let name = ServerName::try_from(server.host.to_string()).map_err(unreached)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        let stream = stream.map_err(|error| unreached(format_args!("TLS: {error}")))?;
        log_in(login, stream, config).await
    } else {
        log_in(login, stream, config).await
    }
}

fn unreached(detail: impl std::fmt::Display) -> Failure {
    Failure::new(Trouble::Unreached, detail)
}

/// Asks the sentinels, one after the other, which server is the primary now.
async fn find_primary(settings: &StoreSettings, primary: &str) -> Result<ServerAddress, Failure> {
    let mut last = unreached("no sentinel");
    for sentinel in &settings.address.servers {
        match timeout(SENTINEL_LIMIT, ask_sentinel(settings, sentinel, primary)).await {
            Ok(Ok(server)) => return Ok(server),
            Ok(Err(failure)) => last = failure,
            Err(_) => last = unreached(format_args!("the sentinel {sentinel} does not answer")),
        }
    }
    Err(last)
}

async fn ask_sentinel(
    settings: &StoreSettings,
    sentinel: &ServerAddress,
    primary: &str,
) -> Result<ServerAddress, Failure> {
    // Sentinels have no databases.
    let login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let (mut connection, driver) = open_one(settings, sentinel, &login).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(primary);
    let answer = tokio::select! {
        answer = connection.req_packed_command(&question) => answer?,
        () = driver => return Err(unreached(format_args!("the sentinel {sentinel} has closed the connection"))),
    };
    let server = match &answer {
        Value::Array(parts) => match &**parts {
            [host, port] => text(host).zip(text(port).and_then(|port| port.parse().ok())),
            _ => None,
        },
        _ => None,
    };
    let unknown = || unreached(format_args!("the sentinel {sentinel} knows no primary of that name"));
    server
        .map(|(host, port)| ServerAddress {
            host: host.into(),
            port,
        })
        .ok_or_else(unknown)
}

async fn log_in(
    login: &RedisConnectionInfo,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Driver), Failure> {
    let (connection, driver) = MultiplexedConnection::new_with_config(login, stream, config).await?;
    Ok((connection, Box::pin(driver)))
}

async fn login(settings: &StoreSettings) -> Result<RedisConnectionInfo, Failure> {
    let mut login = RedisConnectionInfo::default()
        .set_db(i64::from(settings.address.database))
        .set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        login = login.set_username(username);
    }
    match &settings.password {
        None => {}
        Some(Password::Text(password)) => login = login.set_password(password),
        Some(Password::File(path)) => {
            let read = path.clone();
            let read = tokio::task::spawn_blocking(move || files::read(&read)).await;
            let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            let password = read.and_then(|content| {
                String::from_utf8(content.bytes).map_err(|_| io::Error::other("it is not text in UTF-8"))
            });
            let password =
                password.map_err(|error| Failure::new(Trouble::Denied, format_args!("{}: {error}", path.display())))?;
            login = login.set_password(password.trim_end_matches(['\r', '\n']));
        }
    }
    Ok(login)
}

async fn dial(server: &ServerAddress) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((&*server.host, server.port)).await?.take(MOST_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Checks that the store can be used.
pub(super) async fn check(
    connection: Connection,
    common: &Common,
    keys: &SpreadKeys,
    replica: u64,
    call_limit: Duration,
) -> Result<Connected, Failure> {
    let (mut scripts, mut name, mut calls) = (Pipeline::new(), Pipeline::new(), Pipeline::new());
    for script in Script::ALL {
        scripts.add_command(script.load());
    }
    // Zero is no name.
    let epoch = fastrand::u64(1..MOST_EXACT);
    name.cmd("SET").arg(common.epoch()).arg(epoch).arg("NX");
    // Calls that are made later, so that a user without a right learns it now.
    calls.cmd("MGET").arg(common.epoch()).arg(&keys.version);
    calls.add_command(keys.changes(MOST_EXACT));
    calls.add_command(presence::tell(keys, replica, ""));
    calls.add_command(presence::list(keys));
    // Commands of one pipeline go to several nodes of a cluster at once.
    checked(&connection, &scripts).await?;
    checked(&connection, &name).await?;
    let replies = checked(&connection, &calls).await?;
    let epoch = match replies.values() {
        [Value::Array(read), ..] => read.first().and_then(read_epoch),
        _ => None,
    };
    let epoch = epoch.ok_or_else(|| Failure::new(Trouble::Unexpected, "the epoch is not a number"))?;
    let (mut memory, mut ping) = (Pipeline::new(), Pipeline::new());
    memory.cmd("INFO").arg("memory");
    let eviction = send(&connection, &memory).await?.values().iter().find_map(eviction);
    let began = clock::now();
    ping.cmd("PING");
    match timeout(call_limit, checked(&connection, &ping)).await {
        Ok(answered) => answered.map(|_| Connected {
            connection,
            epoch,
            eviction,
        }),
        Err(_) => {
            let took = clock::now().since(began);
            Err(Failure::new(Trouble::Timeout, format_args!("no answer in {took:?}")))
        }
    }
}

/// Sends a pipeline. An error reply is an error.
async fn checked(connection: &Connection, pipeline: &Pipeline) -> Result<Replies, Failure> {
    let replies = send(connection, pipeline).await?;
    match replies.failure() {
        Some(failure) => Err(failure.clone()),
        None => Ok(replies),
    }
}

/// Reads what the store does when its memory is full; `None` if it does not tell, as to a user without the right. Of the
/// nodes of a cluster, one that may drop counts is told.
pub(super) fn eviction(memory: &Value) -> Option<Eviction> {
    let text = match memory {
        Value::BulkString(text) => text,
        Value::Map(nodes) => {
            let told = nodes.iter().filter_map(|(_, memory)| eviction(memory));
            return told.max_by_key(|eviction| *eviction != Eviction::Never);
        }
        _ => return None,
    };
    let policy = str::from_utf8(text)
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("maxmemory_policy:"))?;
    Some(Eviction::of(policy.trim()))
}
