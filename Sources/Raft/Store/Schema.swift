// SPDX-License-Identifier: Apache-2.0
internal import GRDB

/// The tables of the applied state. People query them (`hivemind query`): docs/reference/state.md describes each column.
///
/// Times are milliseconds since 1970 UTC, addresses dotted text, versions commit indexes. All tables are STRICT,
/// all but `meta` with its one row WITHOUT ROWID.
enum Schema {
    static let version = 4

    static let statements = """
        CREATE TABLE meta (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            schema_version INTEGER NOT NULL,
            cluster_id TEXT NOT NULL,
            previous_cluster_id TEXT NOT NULL,
            succeeded_at INTEGER NOT NULL,
            container_range TEXT NOT NULL,
            virtual_range TEXT NOT NULL,
            applied_index INTEGER NOT NULL,
            applied_term INTEGER NOT NULL,
            log_time INTEGER NOT NULL,
            configuration_index INTEGER NOT NULL,
            membership BLOB NOT NULL,
            events_compacted INTEGER NOT NULL,
            down_after_ms INTEGER NOT NULL
        ) STRICT;

        CREATE TABLE nodes (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            member INTEGER NOT NULL UNIQUE,
            address TEXT NOT NULL,
            peer_address TEXT NOT NULL,
            api_address TEXT NOT NULL,
            subnet TEXT NOT NULL UNIQUE,
            role TEXT NOT NULL,
            pin TEXT NOT NULL,
            availability TEXT NOT NULL,
            liveness TEXT NOT NULL,
            labels TEXT NOT NULL,
            taints TEXT NOT NULL,
            cpu_millis INTEGER NOT NULL,
            memory_bytes INTEGER NOT NULL,
            version TEXT NOT NULL,
            joined_at INTEGER NOT NULL,
            changed_index INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE removed_nodes (
            member INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            subnet TEXT NOT NULL,
            removed_at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE authorities (
            id TEXT PRIMARY KEY,
            certificate TEXT NOT NULL,
            sealed_key TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            phase TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE certificates (
            node TEXT PRIMARY KEY,
            serial TEXT NOT NULL,
            authority TEXT NOT NULL,
            not_before INTEGER NOT NULL,
            not_after INTEGER NOT NULL,
            trusted TEXT NOT NULL,
            renew_serial TEXT,
            recorded_at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE join_tokens (
            id TEXT PRIMARY KEY,
            hash TEXT NOT NULL,
            role TEXT NOT NULL,
            uses_left INTEGER,
            created_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            version INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE api_tokens (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            hash TEXT NOT NULL,
            role TEXT NOT NULL,
            namespace TEXT,
            created_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            version INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE apps (
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            release INTEGER NOT NULL,
            deleting INTEGER NOT NULL,
            version INTEGER NOT NULL,
            created_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            PRIMARY KEY (namespace, name)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE services (
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            name TEXT NOT NULL,
            image TEXT NOT NULL,
            image_digest TEXT NOT NULL,
            replicas INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            vip TEXT,
            endpoint_mode TEXT NOT NULL,
            removed INTEGER NOT NULL,
            version INTEGER NOT NULL,
            PRIMARY KEY (namespace, app, name)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE specs (
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            service TEXT NOT NULL,
            generation INTEGER NOT NULL,
            spec TEXT NOT NULL,
            PRIMARY KEY (namespace, app, service, generation)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE releases (
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            release INTEGER NOT NULL,
            services TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            PRIMARY KEY (namespace, app, release)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE rollouts (
            id TEXT PRIMARY KEY,
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            release INTEGER NOT NULL,
            previous_release INTEGER,
            state TEXT NOT NULL,
            rolling_back INTEGER NOT NULL,
            reason_code TEXT,
            reason_message TEXT,
            reason_hint TEXT,
            failed_task TEXT,
            progress_deadline_ms INTEGER NOT NULL,
            progress_at INTEGER NOT NULL,
            started_at INTEGER NOT NULL,
            ended_at INTEGER,
            sequence INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX rollouts_by_app ON rollouts (namespace, app, sequence);

        CREATE TABLE published_ports (
            protocol TEXT NOT NULL,
            host_port INTEGER NOT NULL,
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            service TEXT NOT NULL,
            container_port INTEGER NOT NULL,
            PRIMARY KEY (protocol, host_port)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE host_ports (
            protocol TEXT NOT NULL,
            host_port INTEGER NOT NULL,
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            service TEXT NOT NULL,
            container_port INTEGER NOT NULL,
            PRIMARY KEY (protocol, host_port, namespace, app, service)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE tasks (
            id TEXT PRIMARY KEY,
            namespace TEXT NOT NULL,
            app TEXT NOT NULL,
            service TEXT NOT NULL,
            generation INTEGER NOT NULL,
            release INTEGER NOT NULL,
            node TEXT NOT NULL,
            goal TEXT NOT NULL,
            state TEXT NOT NULL,
            ready INTEGER NOT NULL,
            address TEXT NOT NULL,
            container_id TEXT,
            pid INTEGER,
            restarts INTEGER NOT NULL,
            exit_code INTEGER,
            reason_code TEXT,
            reason_message TEXT,
            reason_hint TEXT,
            image TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            started_at INTEGER,
            ended_at INTEGER,
            sequence INTEGER NOT NULL,
            version INTEGER NOT NULL,
            moving INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX tasks_by_service ON tasks (namespace, app, service, sequence);
        CREATE INDEX tasks_by_node ON tasks (node, id);
        CREATE INDEX tasks_moving ON tasks (sequence, id) WHERE moving = 1;

        CREATE TABLE addresses (
            address TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            owner TEXT,
            released_at INTEGER
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX addresses_by_owner ON addresses (owner);

        CREATE TABLE volumes (
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            driver TEXT NOT NULL,
            node TEXT,
            deleting INTEGER NOT NULL,
            version INTEGER NOT NULL,
            created_at INTEGER NOT NULL,
            PRIMARY KEY (namespace, name)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE volume_users (
            namespace TEXT NOT NULL,
            volume TEXT NOT NULL,
            app TEXT NOT NULL,
            PRIMARY KEY (namespace, volume, app)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE configs (
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            data TEXT NOT NULL,
            version INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            PRIMARY KEY (namespace, name)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE requests (
            applied_index INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            result TEXT NOT NULL,
            at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE events (
            log_index INTEGER NOT NULL,
            sub INTEGER NOT NULL,
            kind TEXT NOT NULL,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            change TEXT NOT NULL,
            version INTEGER NOT NULL,
            PRIMARY KEY (log_index, sub)
        ) STRICT, WITHOUT ROWID;
        """

    /// Every table in the order it is made, with its primary key: the order of the digest.
    static let tables: [(name: String, key: String)] = [
        ("meta", "id"), ("nodes", "id"), ("removed_nodes", "member"), ("authorities", "id"), ("certificates", "node"),
        ("join_tokens", "id"), ("api_tokens", "id"),
        ("apps", "namespace, name"), ("services", "namespace, app, name"),
        ("specs", "namespace, app, service, generation"), ("releases", "namespace, app, release"), ("rollouts", "id"),
        ("published_ports", "protocol, host_port"), ("host_ports", "protocol, host_port, namespace, app, service"),
        ("tasks", "id"), ("addresses", "address"),
        ("volumes", "namespace, name"), ("volume_users", "namespace, volume, app"), ("configs", "namespace, name"),
        ("requests", "applied_index"), ("events", "log_index, sub"),
    ]
}
