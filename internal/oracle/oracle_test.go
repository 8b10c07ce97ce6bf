package oracle

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"

	"pgweir/router"
)

// assume is what the scanner is asked with: every relation is an ordinary table, no function
// but the built-in ones is known.
func assume() *router.Env {
	return &router.Env{Catalog: &router.Catalog{AssumeTables: true}, StdStrings: true, Path: &router.Path{Schemas: []string{"pg_catalog", "public"}}}
}

// TestGoldenFiles asks the grammar about the golden files of package router.
func TestGoldenFiles(t *testing.T) {
	files, err := filepath.Glob("../../router/testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	accepted, all := 0, 0
	for _, file := range files {
		for _, text := range goldenTexts(t, file) {
			all++
			if check(t, text) {
				accepted++
			}
		}
	}
	t.Logf("the grammar accepts %d of %d texts", accepted, all)
	if accepted < 600 {
		t.Errorf("the grammar accepts only %d of %d texts", accepted, all)
	}
}

// goldenTexts are the texts of a golden file that run with standard_conforming_strings on.
func goldenTexts(t *testing.T, file string) []string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var texts, lines []string
	std := true
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "=> "):
			if text := strings.Join(lines, "\n"); std && !strings.Contains(text, `\x00`) && !strings.Contains(text, `\uFEFF`) {
				texts = append(texts, text)
			}
			lines = nil
		case len(lines) == 0 && (line == "" || strings.HasPrefix(line, "# ")):
		case len(lines) == 0 && strings.HasPrefix(line, "@"):
			if v, ok := strings.CutPrefix(line, "@std "); ok {
				std = v == "on"
			}
		default:
			lines = append(lines, line)
		}
	}
	return texts
}

// TestCorpus asks the grammar about every statement of the .sql files below ORACLE_CORPUS.
func TestCorpus(t *testing.T) {
	dirs := filepath.SplitList(os.Getenv("ORACLE_CORPUS"))
	if len(dirs) == 0 {
		t.Skip("ORACLE_CORPUS names no directory")
	}
	accepted, all := 0, 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".sql" {
				return err
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, s := range router.Split(raw, true) {
				all++
				if check(t, string(s)) {
					accepted++
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the grammar accepts %d of %d statements", accepted, all)
}

// check compares the scanner's verdict on a text with the grammar's tree, if the grammar
// accepts the text; it reports whether it does.
func check(t *testing.T, text string) bool {
	t.Helper()
	tree, err := pgquery.Parse(text)
	if err != nil {
		return false
	}
	u := router.New(router.Config{CacheSize: 8}).Classify([]byte(text), assume())
	if u.Flags&router.FlagUnparsed == 0 && u.Statements != len(tree.GetStmts()) {
		t.Errorf("%q: %d statements, the grammar has %d", text, u.Statements, len(tree.GetStmts()))
	}
	facts := look(tree)
	if why := facts.primary; why != "" && u.Class != router.ClassPrimary {
		t.Errorf("%q: %s (%s), the grammar has %s", text, u.Class, u.Reason, why)
	}
	if u.Flags&router.FlagUnparsed == 0 {
		for _, name := range facts.settings {
			if !hasSetting(u, name) {
				t.Errorf("%q: no effect for the setting %s among %v", text, name, u.Effects)
			}
		}
	}
	if u.Class == router.ClassRead {
		checkRead(t, text, facts)
	}
	return true
}

// checkRead checks the names of a read.
func checkRead(t *testing.T, text string, f *facts) {
	t.Helper()
	for _, name := range f.functions {
		if name.Name == "current_setting" || name.Name == "set_config" {
			continue // their arguments decide
		}
		info, ok := router.Builtin(name.Name)
		if name.Schema != "" && name.Schema != "pg_catalog" || !ok || info.Verdict != router.VerdictRead {
			t.Errorf("%q is a read, and calls %v", text, name)
		}
	}
	for _, rel := range f.relations {
		if rel.Schema == "" && (slices.Contains(f.ctes, rel.Name) || slices.Contains(f.targets, rel.Name)) || rel.Schema == "information_schema" {
			continue // which of the two is meant is not told here
		}
		if _, system := systemRelation(rel); system {
			continue
		}
		env := assume()
		schema := rel.Schema
		if schema == "" {
			schema = "public"
		}
		env.Catalog.Relations = map[router.QName]router.RelInfo{{Schema: schema, Name: rel.Name}: {Kind: 'r', Persistence: 'u', Read: router.VerdictPrimary}}
		if u := router.New(router.Config{CacheSize: 8}).Classify([]byte(text), env); u.Class != router.ClassPrimary {
			t.Errorf("%q stays a read when %v is unlogged", text, rel)
		}
	}
}

// systemRelation reports whether a bare name is one of pg_catalog's, which comes first in the path.
func systemRelation(rel router.QName) (string, bool) {
	return rel.Name, rel.Schema == "pg_catalog" || rel.Schema == "" && strings.HasPrefix(rel.Name, "pg_")
}

// hasSetting reports whether the unit has an effect on the setting.
func hasSetting(u *router.Unit, name string) bool {
	return slices.ContainsFunc(u.Effects, func(e router.Effect) bool {
		return strings.EqualFold(e.Name, name) || e.Kind == router.EffectResetAll && name == "all"
	})
}

// facts is what the grammar's tree says of a text.
type facts struct {
	primary   string // why it must be the primary, "" when the tree alone does not say so
	functions []router.QName
	relations []router.QName
	ctes      []string
	targets   []string // of SELECT INTO
	settings  []string
}

// look gathers the facts of a tree.
func look(tree *pgquery.ParseResult) *facts {
	f := &facts{}
	for _, raw := range tree.GetStmts() {
		f.statement(raw.GetStmt())
	}
	return f
}

// must notes why the text has to go to the primary.
func (f *facts) must(why string) {
	if f.primary == "" {
		f.primary = why
	}
}

// statement looks at one statement.
func (f *facts) statement(n *pgquery.Node) {
	switch s := n.GetNode().(type) {
	case *pgquery.Node_SelectStmt:
		f.query(n, false)
	case *pgquery.Node_ExplainStmt:
		f.explain(s.ExplainStmt)
	case *pgquery.Node_CopyStmt:
		if s.CopyStmt.GetIsFrom() || s.CopyStmt.GetIsProgram() || s.CopyStmt.GetFilename() != "" {
			f.must("COPY from or to a place of the server")
		}
		f.query(n, false)
	case *pgquery.Node_DeclareCursorStmt:
		const hold = 0x0020
		if s.DeclareCursorStmt.GetOptions()&hold != 0 {
			f.must("WITH HOLD")
		}
		f.query(s.DeclareCursorStmt.GetQuery(), false)
	case *pgquery.Node_VariableSetStmt:
		f.set(s.VariableSetStmt)
	case *pgquery.Node_TransactionStmt:
		switch s.TransactionStmt.GetKind() {
		case pgquery.TransactionStmtKind_TRANS_STMT_PREPARE, pgquery.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED,
			pgquery.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
			f.must("two-phase commit")
		}
	case *pgquery.Node_VariableShowStmt, *pgquery.Node_DiscardStmt, *pgquery.Node_DeallocateStmt, *pgquery.Node_ClosePortalStmt,
		*pgquery.Node_UnlistenStmt, *pgquery.Node_FetchStmt, *pgquery.Node_ConstraintsSetStmt, nil:
	default:
		f.must(fmt.Sprintf("%T", s))
	}
}

// set looks at SET and RESET.
func (f *facts) set(s *pgquery.VariableSetStmt) {
	name := s.GetName()
	switch {
	case s.GetKind() == pgquery.VariableSetKind_VAR_RESET_ALL:
		name = "all"
	case s.GetKind() == pgquery.VariableSetKind_VAR_SET_MULTI || s.GetKind() == pgquery.VariableSetKind_VAR_SET_CURRENT:
		return
	case strings.HasPrefix(name, "transaction_"), name == "timezone":
		return
	}
	f.settings = append(f.settings, name)
}

// explain looks at EXPLAIN.
func (f *facts) explain(s *pgquery.ExplainStmt) {
	analyze := false
	for _, o := range s.GetOptions() {
		d := o.GetDefElem()
		if d.GetDefname() != "analyze" {
			continue
		}
		analyze = true
		if arg := d.GetArg(); arg != nil {
			v := strings.ToLower(arg.GetString_().GetSval())
			analyze = v != "off" && v != "false" && !(arg.GetInteger() != nil && arg.GetInteger().GetIval() == 0)
		}
	}
	switch q := s.GetQuery(); q.GetNode().(type) {
	case *pgquery.Node_SelectStmt, *pgquery.Node_DeclareCursorStmt:
		f.query(q, !analyze)
	case *pgquery.Node_InsertStmt, *pgquery.Node_UpdateStmt, *pgquery.Node_DeleteStmt, *pgquery.Node_MergeStmt, *pgquery.Node_CreateTableAsStmt:
		if analyze {
			f.must("EXPLAIN ANALYZE of a write")
		}
	default:
		f.must("EXPLAIN of a utility")
	}
}

// query looks at everything below a node.
func (f *facts) query(n *pgquery.Node, planOnly bool) {
	f.walk(n.ProtoReflect(), planOnly)
}

// walk looks at a message and everything below it.
func (f *facts) walk(m protoreflect.Message, planOnly bool) {
	if !m.IsValid() {
		return
	}
	f.message(m.Interface(), planOnly)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				f.walk(v.List().Get(i).Message(), planOnly)
			}
			return true
		}
		f.walk(v.Message(), planOnly)
		return true
	})
}

// message looks at one message.
func (f *facts) message(m any, planOnly bool) {
	switch s := m.(type) {
	case *pgquery.InsertStmt, *pgquery.UpdateStmt, *pgquery.DeleteStmt, *pgquery.MergeStmt:
		if !planOnly {
			f.must(fmt.Sprintf("%T inside", s))
		}
	case *pgquery.IntoClause:
		if !planOnly {
			f.must("SELECT INTO")
		}
		f.targets = append(f.targets, s.GetRel().GetRelname())
	case *pgquery.LockingClause:
		f.must("a locking clause")
	case *pgquery.CommonTableExpr:
		f.ctes = append(f.ctes, s.GetCtename())
	case *pgquery.RangeVar:
		f.relations = append(f.relations, router.QName{Schema: s.GetSchemaname(), Name: s.GetRelname()})
	case *pgquery.FuncCall:
		var names []string
		for _, n := range s.GetFuncname() {
			names = append(names, n.GetString_().GetSval())
		}
		q := router.QName{Name: names[len(names)-1]}
		if len(names) > 1 {
			q.Schema = names[len(names)-2]
		}
		if s.GetFuncformat() == pgquery.CoercionForm_COERCE_SQL_SYNTAX {
			return // EXTRACT, AT TIME ZONE, …: the grammar's own calls
		}
		f.functions = append(f.functions, q)
	}
}
