// Package admin answers the question "how is it?" over HTTP, for people, load balancers,
// orchestrators and Prometheus:
//
//	/                    the status page: clusters, nodes, why there is no primary, events, traffic
//	/metrics             Prometheus, classic and native histograms
//	/livez               the process answers
//	/readyz              it listens, its configuration is loaded, every cluster was looked at once;
//	                     no primary is needed, or an orchestrator would cut every client that is held
//	/primary             200 while writes are answered, otherwise 503
//	/replica?lag=16MB    200 while a standby, at most so far behind, answers reads
//	/read-only           200 while anything answers reads
//	/cluster             the nodes as JSON
//
// The names from /primary on and the shape of /cluster are Patroni's, so that checks written
// for it work here. A process serves several clusters; ?cluster=NAME asks about one, without it
// an answer holds for all of them.
//
// The package imports nothing of pgweir: whoever starts it hands over a [Source].
package admin
