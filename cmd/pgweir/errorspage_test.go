package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An occasion is when a client hears an error of ours, in the words of errors.md.
type occasion struct {
	severity string
	when     string
	message  string // where the code puts it together from parts
}

// occasions names each error by the function that makes it and its message.
func occasions() map[string]occasion {
	return map[string]occasion{
		"problemNoPrimary: no primary available in cluster …":                                             {"ERROR", "A statement waited `hold.timeout` for a primary, or had to give up its place to one of `hold.max` newer ones. FATAL while logging in.", ""},
		"problemUnreachable: cannot connect to the primary of cluster …":                                  {"ERROR", "The primary answers its probes, and no connection for clients could be opened for `hold.timeout`. FATAL while logging in.", ""},
		"problemNotFresh: no standby of cluster … is fresh enough for this session":                       {"ERROR", "`reads_on_primary: never`, and no standby became fresh within `hold.timeout`.", ""},
		"problemTxLost: the transaction was lost together with its server":                                {"ERROR", "The node of an open transaction was lost, or is not the primary any more. Every further statement gets 25P02 until ROLLBACK.", ""},
		"problemReadLost: the server answering this query was lost in the middle of its answer":           {"ERROR", "A node was lost when the client had already received a part of the answer of a read.", ""},
		"problemUnknown: the server was lost before it confirmed this statement":                          {"ERROR", "A write or COMMIT had been sent, and its answer never came. The SQLSTATE is `failover.unknown_sqlstate`.", ""},
		"problemReadOnlyTx: cannot execute … in a read-only transaction":                                  {"ERROR", "A read-only transaction runs on a standby, and a statement came that only the primary can run.", ""},
		"problemRefused: cannot execute … in a read-only transaction":                                     {"ERROR", "A write where a standby was asked for, by a hint, by `pgweir.route` or by `route: standby`.", ""},
		"problemAborted: current transaction is aborted, commands ignored until end of transaction block": {"ERROR", "PostgreSQL's own words, after the node of the transaction was lost.", ""},
		"problemStatementTimeout: canceling statement due to statement timeout":                           {"ERROR", "PostgreSQL's own words: the statement was held as long as the session's `statement_timeout`.", ""},
		"problemCanceled: canceling statement due to user request":                                        {"ERROR", "PostgreSQL's own words: a cancel came while the statement waited for a node.", ""},
		"problemConnect: cannot log in to the primary of cluster …":                                       {"ERROR", "The primary let the session's user in no more, for a reason that is not its own error. FATAL while logging in.", ""},
		"problemReplay: cannot put this session's settings in force on another server":                    {"ERROR", "What the session has SET could not be set on a new connection, twice.", ""},
		"problemValue: invalid value for parameter …: …":                                                  {"ERROR", "A value that a setting `pgweir.…` does not take. FATAL in the startup packet.", ""},
		"problemNotAlone: SET and SHOW of pgweir.* must be sent alone":                                    {"ERROR", "A setting `pgweir.…` in one string or batch with other statements.", ""},
		"problemShape: cached plan must not change result type":                                           {"ERROR", "PostgreSQL's own words: a prepared statement was used on another server for the first time, and its rows are not what the client was told.", ""},
		"problemIdle: terminating connection due to idle-session timeout":                                 {"FATAL", "PostgreSQL's own words: the client was idle as long as its `idle_session_timeout`.", ""},
		"problemOverTime: query timeout":                                                                  {"FATAL", "PgBouncer's words: a statement took longer than `query_timeout`, and was cancelled on its node.", ""},
		"problemOverTime: transaction timeout":                                                            {"FATAL", "PgBouncer's words: a transaction took longer than `transaction_timeout`.", ""},
		"problemOverTime: idle transaction timeout":                                                       {"FATAL", "PgBouncer's words: the client was idle within a transaction for `idle_transaction_timeout`.", ""},
		"problemOverTime: client_idle_timeout":                                                            {"FATAL", "PgBouncer's words: the client was idle outside of a transaction for `client_idle_timeout`.", ""},
		"problemOverTime: client_lifetime":                                                                {"FATAL", "The client has been connected for `client_lifetime`, and was idle outside of a transaction.", ""},
		"problemUnknownOwn: unrecognized configuration parameter …":                                       {"ERROR", "A setting `pgweir.…` that does not exist. FATAL in the startup packet.", ""},
		"problemWait: no connection to a server became free in time":                                      {"ERROR", "A limit of pools was reached for `query_wait_timeout`; DETAIL and HINT name it. FATAL while logging in.", ""},
		"problemServerFull: refused.Message":                                                              {"ERROR", "The node's own message: it has no connection to spare, and the pool has none. FATAL while logging in.", "sorry, too many clients already"},
		"farewell: terminating connection: the server that held this session's state was lost":            {"FATAL", "A pinned session's connection was lost; DETAIL names the pin.", ""},
		"farewell: terminating connection due to administrator command":                                   {"FATAL", "pgweir is shutting down, and the session did not come to a transaction boundary in `drain_timeout`, or was between transactions.", ""},
		"mayEnter: no pg_hba.conf entry for host …, user …, database …, no encryption":                    {"FATAL", "The listener takes TLS only.", ""},
		"problemPaused: database … is paused":                                                             {"ERROR", "An administrator has paused the database on the console, and it was not resumed for `query_wait_timeout`, or the session's `statement_timeout`. FATAL while logging in.", ""},
		"enter: database … is not currently accepting connections":                                        {"FATAL", "An administrator has disabled the database on the console.", ""},
		"problemNoConsole: permission denied for database …":                                              {"FATAL", "The database is the console, and `admin.users` does not name the user. Said after the password was proven only.", ""},
		"problemConsoleFull: sorry, too many clients of the console already":                              {"FATAL", "32 clients are connected to the console.", ""},
		"refuse: err.Error()": {"ERROR", "On the console: what could not be done, for a reason that has no SQLSTATE of its own.", "…"},
		"console: the console speaks no replication protocol": {"FATAL", "A replication connection to the console's database.", ""},
		"login: err.Error()": {"FATAL", "No entry of `databases` takes the name. Said after the password was proven only.", "database … does not exist"},
		"problemLoginLate: no server answered in time for this login": {"FATAL", "A login waited for a node for as long as `client_login_timeout` allows.", ""},
		"authenticate: cannot verify users now":                       {"FATAL", "No node that knows the users could be asked for 30 s, or half of `client_login_timeout`.", ""},
		"admit: sorry, too many clients already":                      {"FATAL", "`max_client_conn` clients are connected.", ""},
	}
}

// literal is a composite literal of an error with what it stands in.
type literalError struct {
	fn     *ast.FuncDecl
	fields map[string]ast.Expr
	typ    string
}

// errorLiterals finds the literals of the named types that have a message.
func errorLiterals(files []*ast.File, types ...string) []literalError {
	var out []literalError
	for _, s := range files {
		for _, decl := range s.Decls {
			fn, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool {
				lit, ok := n.(*ast.CompositeLit)
				if !ok {
					return true
				}
				name := ""
				switch x := lit.Type.(type) {
				case *ast.Ident:
					name = x.Name
				case *ast.SelectorExpr:
					name = x.Sel.Name
				}
				if !slices.Contains(types, name) {
					return true
				}
				e := literalError{fn: fn, fields: map[string]ast.Expr{}, typ: name}
				for _, elt := range lit.Elts {
					if kv, ok := elt.(*ast.KeyValueExpr); ok {
						e.fields[strings.ToLower(kv.Key.(*ast.Ident).Name)] = kv.Value
					}
				}
				if e.fields["message"] != nil {
					out = append(out, e)
				}
				return true
			})
		}
	}
	return out
}

// wording is the text of an expression with … for what is filled in; ok is false where nothing of
// it is fixed.
func wording(e ast.Expr) (text string, ok bool) {
	switch x := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(x.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		l, lok := wording(x.X)
		r, rok := wording(x.Y)
		if !lok {
			l = "…"
		}
		if !rok {
			r = "…"
		}
		return strings.ReplaceAll(l+r, "……", "…"), lok || rok
	case *ast.CallExpr:
		if fn, isSel := x.Fun.(*ast.SelectorExpr); isSel && fn.Sel.Name == "Sprintf" {
			text, ok := wording(x.Args[0])
			return regexp.MustCompile(`"?%[a-z0-9]*[a-zA-Z]"?`).ReplaceAllString(text, "…"), ok
		}
	}
	return "", false
}

// constants are the string constants of some files, with the comment behind each.
func constants(files []*ast.File) (values, comments map[string]string) {
	values, comments = map[string]string{}, map[string]string{}
	for _, s := range files {
		for _, decl := range s.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				v := spec.(*ast.ValueSpec)
				if len(v.Values) != 1 {
					continue
				}
				if text, ok := wording(v.Values[0]); ok {
					values[v.Names[0].Name] = text
					comments[text] = strings.TrimSpace(v.Comment.Text())
				}
			}
		}
	}
	return values, comments
}

// codeOf is the SQLSTATE of a literal: a constant, or a variable that starts as one.
func codeOf(e literalError, values map[string]string) string {
	expr := e.fields["code"]
	if expr == nil {
		expr = e.fields["sqlstate"]
	}
	if sel, ok := expr.(*ast.SelectorExpr); ok {
		return values[sel.Sel.Name]
	}
	id, ok := expr.(*ast.Ident)
	if !ok {
		return ""
	}
	if v, ok := values[id.Name]; ok {
		return v
	}
	code := ""
	ast.Inspect(e.fn, func(n ast.Node) bool {
		if as, ok := n.(*ast.AssignStmt); ok && as.Tok == token.DEFINE {
			if x, ok := as.Lhs[0].(*ast.Ident); ok && x.Name == id.Name {
				if from, ok := as.Rhs[0].(*ast.Ident); ok {
					code = values[from.Name]
				}
			}
		}
		return true
	})
	return code
}

// row is one line of a table of errors.
type row struct{ code, cells string }

// table writes rows in the order of their SQLSTATE.
func table(b *strings.Builder, head string, rows []row) {
	slices.SortStableFunc(rows, func(x, y row) int { return strings.Compare(x.code, y.code) })
	fmt.Fprintf(b, "\n| SQLSTATE | %s |\n|---%s|\n", head, strings.Repeat("|---", strings.Count(head, "|")+1))
	for i, r := range rows {
		if i == 0 || rows[i-1] != r {
			fmt.Fprintf(b, "| %s | %s |\n", r.code, r.cells)
		}
	}
}

// ownErrors are the rows of what pgweir says in its own name.
func ownErrors(t *testing.T, files []*ast.File) []row {
	t.Helper()
	values, comments := constants(files)
	known := occasions()
	var rows []row
	for _, e := range errorLiterals(files, "problem") {
		message, ok := wording(e.fields["message"])
		if sel, is := e.fields["message"].(*ast.SelectorExpr); is && sel.Sel.Name == "Message" {
			continue // somebody else's words: the second table
		}
		if !ok {
			message = "err.Error()"
		}
		key := e.fn.Name.Name + ": " + message
		o, ok := known[key]
		if !ok {
			t.Errorf("errors.md does not say when a client hears %q; add it to occasions", key)
			continue
		}
		delete(known, key)
		if o.message != "" {
			message = o.message
		}
		code := codeOf(e, values)
		hint := "–"
		if h, ok := wording(e.fields["hint"]); ok {
			hint = h
		}
		rows = append(rows, row{fmt.Sprintf("`%s` %s", code, comments[code]), fmt.Sprintf("%s: %s | %s | %s", o.severity, message, o.when, hint)})
	}
	for key := range known {
		t.Logf("no code says %q any more; it can go from occasions", key)
	}
	return rows
}

// protocolErrors are the rows of what is said in PostgreSQL's words to a client that breaks the protocol
// or cannot prove who it is.
func protocolErrors(t *testing.T, files []*ast.File) []row {
	t.Helper()
	values, _ := constants(files)
	var rows []row
	for _, e := range errorLiterals(files, "ProtocolError", "Error") {
		message, ok := wording(e.fields["message"])
		if !ok {
			continue // a helper's parameter
		}
		told := "FATAL"
		if only, ok := e.fields["logonly"].(*ast.Ident); ok && only.Name == "true" {
			told = "nothing; the connection is closed"
		}
		rows = append(rows, row{"`" + codeOf(e, values) + "`", message + " | " + told})
	}
	for _, s := range files {
		ast.Inspect(s, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if fn, ok := call.Fun.(*ast.Ident); ok && fn.Name == "violation" {
				if message, ok := wording(call.Args[0]); ok {
					rows = append(rows, row{"`08P01`", message + " | FATAL"})
				}
			}
			return true
		})
	}
	slices.SortFunc(rows, func(x, y row) int { return strings.Compare(x.code+x.cells, y.code+y.cells) })
	return rows
}

// parsed are the files of some packages, tests left out.
func parsed(t *testing.T, dirs ...string) []*ast.File {
	t.Helper()
	var out []*ast.File
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatal(dir, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, file)
		}
	}
	return out
}

func TestErrorsPage(t *testing.T) {
	own := parsed(t, "proxy")
	protocol := append(parsed(t, "internal/pgwire", "internal/auth"), own...)
	var b strings.Builder
	b.WriteString("# Errors of pgweir's own\n\nErrors of PostgreSQL pass as they are, byte for byte. What pgweir says itself has the field `R` (routine) `pgweir`, so that a\nprogram can tell. DETAIL says what is known: the cluster, its nodes and their states in words. Before a client has\nlogged in nothing of that is disclosed. `…` stands for what is filled in. This page is generated from the code\n(`go test ./cmd/pgweir -run Page -update`).\n\n")
	b.WriteString("An ERROR ends the statement or the transaction, and the connection stays; a FATAL ends the connection. Where an error of\nours falls into an open transaction or batch, the node is made to fail as well, so that what remains is what PostgreSQL would\nhave left.\n")
	table(&b, "severity: message | when | hint", ownErrors(t, own))
	b.WriteString("\n## In PostgreSQL's words\n\nA client that breaks the protocol or cannot prove who it is hears what PostgreSQL would say, and the connection ends.\nA wrong password and an unknown user get the same answer.\n")
	table(&b, "message | the client is told", protocolErrors(t, protocol))
	checkPage(t, "../../docs/errors.md", b.String())
}
