package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
)

// planPgpool is Pgpool-II before all nodes, with balancing statement by statement.
func (r *rig) planPgpool(ctx context.Context) ([]plan, error) {
	path, err := find("pgpool")
	if err != nil {
		return nil, err
	}
	version, err := versionOf(ctx, path, "--version")
	if err != nil {
		return nil, err
	}
	pcp, err := freePort()
	if err != nil {
		return nil, err
	}
	return []plan{{
		kind: pgpool, version: fmt.Sprintf("Pgpool-II %s, balancing", version),
		command: command{
			path: path, args: []string{"-n", "-f", "pgpool.conf", "-a", "pool_hba.conf", "-F", "pcp.conf"},
			ask: []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT},
		},
		files: func(port int) map[string]string {
			return map[string]string{
				"pgpool.conf":   r.pgpoolConf(port, pcp, version),
				"pool_hba.conf": "host all all 127.0.0.1/32 scram-sha-256\n",
				"pool_passwd":   fmt.Sprintf("%s:TEXT%s\n", benchUser, r.password),
				"pcp.conf":      "",
			}
		},
	}}, nil
}

// pgpoolConf is Pgpool-II's configuration. Paths that it does not take from its own directory lie
// in the rig's.
func (r *rig) pgpoolConf(port, pcp int, version string) string {
	var b strings.Builder
	sockets := "unix_socket_directories"
	pcpSockets := "pcp_socket_dir"
	if strings.HasPrefix(version, "3.") || strings.HasPrefix(version, "4.") && version < "4.4" {
		sockets = "socket_dir"
	}
	fmt.Fprintf(&b, `backend_clustering_mode = 'streaming_replication'
listen_addresses = '127.0.0.1'
port = %d
%s = '%s'
%s = '%s'
pcp_listen_addresses = '127.0.0.1'
pcp_port = %d
pid_file_name = '%s'
logdir = '%s'
num_init_children = 80
max_pool = 1
enable_pool_hba = on
pool_passwd = 'pool_passwd'
load_balance_mode = on
statement_level_load_balance = on
sr_check_user = '%s'
sr_check_database = '%s'
health_check_period = 0
log_client_messages = off
`, port, sockets, r.dir, pcpSockets, r.dir, pcp, filepath.Join(r.dir, "pgpool.pid"), r.dir, benchUser, benchDatabase)
	for i, n := range r.cluster.Nodes {
		fmt.Fprintf(&b, "backend_hostname%d = '127.0.0.1'\nbackend_port%d = %d\nbackend_weight%d = 1\nbackend_flag%d = 'ALLOW_TO_FAILOVER'\n", i, i, n.Port(), i, i)
	}
	return b.String()
}
