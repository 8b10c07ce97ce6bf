// Package router answers: which node may answer this statement, and why?
//
// It is pure: no net, os, context or clock. Classify says what a text may do and remembers it;
// Route says where it goes now. What they cannot know is handed to them: the database's names
// (Catalog, Path), the session (Env, View), the nodes (health.Snapshot), the moment.
//
// # From text to node
//
//	text ──▶ scanner ──▶ parser ──▶ Unit {class, reason, mark, flags, effects}
//	           │            │         │
//	           │            │         ├── Join: a batch of several statements
//	           │            │         ▼
//	           │            │       Route(Unit, View, Snapshot) ──▶ Decision {node, reason}
//	           │            └── names: functions.go (built in), Catalog (the database's own)
//	           └── shape: the text without comments, case and constants ──▶ cache
//
// A text of a known shape costs one pass of the scanner and no allocation; a text seen twice
// costs a hash. A unit in which a constant decides (SET, set_config, current_setting …) is
// remembered for its exact text only.
//
// # Classes
//
// A unit is a whole simple-query string, or a whole batch up to Sync. It has the strongest
// class of its statements, and of two equally strong verdicts the one that is certain.
//
//	class    who may answer           mark left   examples
//	session  any node, or pgweir      none        SET, RESET, DISCARD, DEALLOCATE, CLOSE, UNLISTEN, BEGIN, COMMIT
//	read     a fresh standby          read        SELECT, VALUES, TABLE, EXPLAIN, COPY … TO STDOUT, SHOW, FETCH
//	primary  the primary              write       everything else
//
// Statements that go to the primary only because of what they look at (a node, a temporary or
// unlogged relation, a sequence, a setting) leave a read mark.
//
// # Rules
//
// "Certain" verdicts stand against a standby hint: those that a standby refuses become ERROR
// 25006, the others go to the primary with reason hint_refused. A hint overrides all others.
//
//	what the text holds                                              class    reason         certain
//	SELECT, VALUES, TABLE, WITH … of names that are reads            read     read           –
//	INSERT, UPDATE, DELETE, MERGE, at any depth of WITH              primary  write          25006
//	SELECT … INTO, CREATE, ALTER, DROP, TRUNCATE, GRANT, VACUUM …    primary  write          25006
//	CALL, DO, COPY TO a file or program                              primary  write          yes
//	COPY … FROM                                                      primary  copy_in        25006
//	COPY (query) TO STDOUT                                           as the query
//	EXPLAIN of DML or CREATE TABLE AS without ANALYZE                read     read           –
//	EXPLAIN ANALYZE, PREPARE, DECLARE                                at least as the statement inside
//	FOR UPDATE, NO KEY UPDATE, SHARE, KEY SHARE, at any depth        primary  locking        25006
//	LOCK (ACCESS SHARE is a read inside a read-only transaction)     primary  locking        25006
//	PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED          primary  write          25006
//	PREPARE, EXECUTE, LOAD, DECLARE … WITH HOLD                      primary  state          yes
//	LISTEN                                                           primary  state          25006
//	NOTIFY, pg_notify, txid_current, lo_create …                     primary  write          25006
//	SET SESSION AUTHORIZATION                                        primary  state          yes
//	SET and RESET of anything else, set_config of constants alone    session  session        –
//	set_config with an unknown value or inside a larger query        primary  state          yes
//	set_config(constant, unknown, true) of a harmless setting        as the rest of the statement
//	SHOW, current_setting of a setting that clients can set          read     read           –
//	SHOW, current_setting of any other, or of transaction_read_only  primary  setting        –
//	SHOW pgweir.…, SET pgweir.…                                      session  session        –
//	BEGIN, COMMIT, ROLLBACK, SAVEPOINT …                             session  transaction    –
//	BEGIN with reads in one unit, not READ ONLY                      primary  transaction    –
//	READ WRITE of the transaction, in any spelling                   primary  transaction    yes
//	SERIALIZABLE of the transaction, in any spelling                 primary  serializable   yes
//	SET TRANSACTION SNAPSHOT, pg_export_snapshot                     primary  snapshot       yes
//	nextval, setval                                                  primary  sequence       25006
//	currval, lastval                                                 primary  sequence       yes
//	a sequence read directly                                         primary  sequence       –
//	advisory locks                                                   primary  advisory       yes
//	SELECT pg_advisory_unlock_all() alone                            session  session        –
//	functions and views that describe a node or act on one           primary  node_local     –
//	functions that run a query given as text                         primary  volatile       –
//	stable and immutable functions, and volatile ones on the list    read     read           –
//	other volatile functions, operators, types, attributes           primary  volatile       –
//	functions and relations that leave unseen state in the session   primary  state          yes
//	functions and relations of which nothing is known                primary  unknown_name   –
//	temporary relations, and every bare name while pg_temp exists    primary  temporary      yes
//	unlogged relations                                               primary  unlogged       yes
//	foreign tables                                                   primary  foreign        –
//	reads in a unit that changes the path, role or encoding          primary  state          –
//	reads in a unit that makes SERIALIZABLE the default              primary  serializable   yes
//	text that is not plain ASCII in an unsafe client_encoding        primary  encoding       yes
//	text that is not understood                                      primary  unparsed       yes
//	a shape that a standby refused before                            primary  learned        –
//
// # Where names are looked up
//
// A bare name is looked up in the schemas of the Path; a function's verdict joins the overloads
// of all of them, a relation's is that of the first schema that has it. A name is a call where
// it stands before a parenthesis, unless it is reserved, a type behind :: or AS, or a list of
// columns; a name in FROM is a relation unless it is a common table expression in sight. What
// cannot be told apart is looked up as the more dangerous thing.
package router
