//! Which server is at the address: what can't keep a journal is refused before anything starts.

/// The oldest version with all commands: XADD NOMKSTREAM came with 6.2.
const MIN_VERSION: (u64, u64) = (6, 2);

/// What the server tells of itself in INFO. Servers that speak Redis's protocol give a Redis version beside their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Server<'a> {
    version: Option<&'a str>,
    mode: Option<&'a str>,
    role: Option<&'a str>,
    policy: Option<&'a str>,
}

/// A server that can't keep a journal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnfitServer {
    #[error("it is version {0}, and the journal needs 6.2 or newer")]
    Old(String),
    #[error(
        "it runs as a cluster, where the journal's keys are on several servers; use one server, with replicas if you like"
    )]
    Cluster,
}

impl<'a> Server<'a> {
    /// Reads INFO's answer. What isn't there isn't known: a proxy or a hosted server may hide it.
    pub(super) fn of(info: &'a str) -> Self {
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim()).filter(|value| !value.is_empty())
        };
        Self {
            version: field("redis_version"),
            mode: field("redis_mode"),
            role: field("role"),
            policy: field("maxmemory_policy"),
        }
    }

    /// Refuses what is known not to work, and warns of what will lose streams.
    ///
    /// # Errors
    /// The server can't keep a journal.
    pub(super) fn check(&self) -> Result<(), UnfitServer> {
        if self.mode == Some("cluster") {
            return Err(UnfitServer::Cluster);
        }
        if let Some(version) = self.version
            && parse(version).is_some_and(|version| version < MIN_VERSION)
        {
            return Err(UnfitServer::Old(version.to_owned()));
        }
        if self.role == Some("slave") {
            tracing::warn!("redis is a replica: nothing starts until it is the master");
        }
        match self.policy {
            Some("noeviction") => {}
            Some(policy) => tracing::warn!(
                policy,
                "redis may evict running streams, their leases and their keys: readers lose answers, and repeated starts \
                 are paid again; set maxmemory-policy to noeviction"
            ),
            None => tracing::warn!("redis doesn't tell its maxmemory-policy; it has to be noeviction"),
        }
        Ok(())
    }
}

/// Major and minor version.
fn parse(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: &str, mode: &str) -> Result<(), UnfitServer> {
        let info =
            format!("# Server\r\nredis_version:{version}\r\nredis_mode:{mode}\r\n# Replication\r\nrole:master\r\n");
        Server::of(&info).check()
    }

    #[test]
    fn versions_without_the_journals_commands_are_refused() {
        for version in ["2.8.19", "5.0.14", "6.0.16", "6.1.240"] {
            assert_eq!(check(version, "standalone"), Err(UnfitServer::Old(version.into())));
        }
        for version in ["6.2.0", "6.10.1", "7.2.4", "8.0.0", "10.0.0", "255.255.255", "unknown", ""] {
            assert_eq!(check(version, "standalone"), Ok(()), "{version}");
        }
    }

    #[test]
    fn a_cluster_is_refused_and_what_is_hidden_is_not() {
        assert_eq!(check("7.2.4", "cluster"), Err(UnfitServer::Cluster));
        assert_eq!(check("7.2.4", "sentinel"), Ok(()));
        assert_eq!(Server::of("").check(), Ok(()));
    }

    #[test]
    fn fields_are_read_by_their_whole_names() {
        let server = Server::of("mem_maxmemory_policy:x\r\nmaxmemory_policy:volatile-lru\r\nmaxmemory_policy_y:z\r\n");
        assert_eq!(server.policy, Some("volatile-lru"));
    }
}
