//! One connection to Redis, on which commands are sent side by side.

use std::time::Duration;

use parking_lot::Mutex;
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisResult, ScriptInvocation, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// How long the answer to a command may take.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long Redis may take to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Connection {
    client: Client,
    /// Held for a clone or an assignment: no command is sent under the lock.
    manager: Mutex<ConnectionManager>,
    timeout: Duration,
}

impl Connection {
    /// Connects now. A command waits `timeout` for its answer.
    pub(super) async fn connect(client: &Client, timeout: Duration) -> RedisResult<Self> {
        let manager = ConnectionManager::new_with_config(client.clone(), config(timeout)).await?;
        Ok(Self { client: client.clone(), manager: Mutex::new(manager), timeout })
    }

    /// Connects at the first command. A command waits `timeout` for its answer.
    pub(super) fn lazy(client: &Client, timeout: Duration) -> RedisResult<Self> {
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config(timeout))?;
        Ok(Self { client: client.clone(), manager: Mutex::new(manager), timeout })
    }

    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.send(|mut manager| async move { command.query_async(&mut manager).await }).await
    }

    pub(super) async fn pipeline<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        self.send(|mut manager| async move { commands.query_async(&mut manager).await }).await
    }

    pub(super) async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        self.send(|mut manager| async move { script.invoke_async(&mut manager).await }).await
    }

    /// Sends once, and once more where the connection broke before the answer.
    async fn send<T, F: Future<Output = RedisResult<T>>>(
        &self,
        attempt: impl Fn(ConnectionManager) -> F,
    ) -> RedisResult<T> {
        let mut answer = attempt(self.manager()).await;
        if broke(&answer) {
            answer = attempt(self.manager()).await;
        }
        self.replace_unless_usable(&answer);
        answer
    }

    fn manager(&self) -> ConnectionManager {
        self.manager.lock().clone()
    }

    /// The manager connects again by itself where the connection broke, but not where the server refused it, nor where it
    /// leads to a server that takes no writes any more.
    fn replace_unless_usable<T>(&self, answer: &RedisResult<T>) {
        use ServerErrorKind::{MasterDown, ReadOnly};
        if let Err(error) = answer
            && let ErrorKind::AuthenticationFailed
            | ErrorKind::Parse
            | ErrorKind::InvalidClientConfig
            | ErrorKind::RESP3NotSupported
            | ErrorKind::Server(ReadOnly | MasterDown) = error.kind()
            && let Ok(manager) = ConnectionManager::new_lazy_with_config(self.client.clone(), config(self.timeout))
        {
            *self.manager.lock() = manager;
        }
    }
}

/// No retries: who sends a command decides whether to repeat it, and does not wait for several attempts.
fn config(timeout: Duration) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(timeout))
}

/// Whether the connection broke before its answer. Servers close idle connections (`timeout`), and a command may be the
/// first to notice. Each command can be repeated: an entry and a stream have ids of their own, and the others set what
/// they set.
fn broke<T>(answer: &RedisResult<T>) -> bool {
    answer.as_ref().is_err_and(|error| (error.is_io_error() || error.is_connection_dropped()) && !error.is_timeout())
}
