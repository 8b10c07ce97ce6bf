package pgwire

import "testing"

// TestViewsDoNotAllocate pins what the path of a statement looks at and says.
func TestViewsDoNotAllocate(t *testing.T) {
	client := AppendSync(AppendExecute(AppendBind(AppendParse(nil, "s", "select $1", AppendOIDs(nil, 23)), "", "s", []byte("1")), "", 0))
	query := AppendQuery(nil, "select 1")[HeaderSize:]
	parse := AppendParse(nil, "s", "select $1", AppendOIDs(nil, 23))[HeaderSize:]
	bind := AppendBind(nil, "p", "s", []byte("1"), nil)[HeaderSize:]
	failure := AppendError(nil, Report{Severity: "ERROR", Code: "25006", Message: "cannot execute INSERT in a read-only transaction"})[HeaderSize:]
	row := AppendDataRow(nil, []byte("1"), nil)[HeaderSize:]
	columns := AppendTextColumns(nil, "a", "b")[HeaderSize:]
	status := AppendParameterStatus(nil, "TimeZone", "UTC")[HeaderSize:]
	buf := make([]byte, 0, 1024)
	matched := 0
	for name, f := range map[string]func(){
		"NextMessage": func() {
			for rest, err := client, error(nil); err == nil; {
				_, _, rest, err = NextMessage(rest)
			}
		},
		"ParseHeader":  func() { _, _, _ = ParseHeader(client) },
		"ClientLimit":  func() { _, _ = ClientLimit(MsgBind) },
		"ParseQuery":   func() { _, _ = ParseQuery(query) },
		"ParseParse":   func() { v, _ := ParseParse(parse); matched += int(v.Types.At(0)) },
		"ParseBind":    func() { _, _ = ParseBind(bind) },
		"ParseExecute": func() { _, _, _ = ParseExecute([]byte("p\x00\x00\x00\x00\x01")) },
		"ParseClose":   func() { _, _, _ = ParseClose([]byte("Ss\x00")) },
		"arguments": func() {
			v, _ := ParseBind(bind)
			a, _ := ParseArguments(v.Rest)
			for _, ok := a.Next(); ok; _, ok = a.Next() {
			}
		},
		"ErrorFields": func() {
			v, _ := ErrorFields(failure)
			if string(v.Code) == "25006" && !v.Fatal() {
				matched++
			}
		},
		"ParseReadyForQuery":   func() { _, _ = ParseReadyForQuery([]byte{'I'}) },
		"ParseParameterStatus": func() { _, _, _ = ParseParameterStatus(status) },
		"ParseCommandComplete": func() { _, _ = ParseCommandComplete([]byte("SELECT 1\x00")) },
		"ParseDataRow": func() {
			v, _ := ParseDataRow(row)
			for _, ok := v.Next(); ok; _, ok = v.Next() {
			}
		},
		"ParseRowDescription": func() {
			v, _ := ParseRowDescription(columns)
			for _, ok := v.Next(); ok; _, ok = v.Next() {
			}
		},
		"malformed": func() { _, _ = ParseQuery([]byte("no end")) },
		"building": func() {
			v, _ := ParseParse(parse)
			b := AppendParse(buf[:0], "reserved_1", v.SQL, v.Types)
			h, _ := ParseBind(bind)
			b = AppendBindHead(b, h.Portal, "reserved_1", h.Rest)
			b = AppendDescribe(b, KindPortal, h.Portal)
			b = AppendQuery(AppendExecute(b, h.Portal, 0), "BEGIN")
			b = AppendParameterStatus(b, "TimeZone", "UTC")
			b = AppendReadyForQuery(AppendCommandComplete(AppendSync(b), "BEGIN"), TxOpen)
			AppendError(b, Report{Severity: "ERROR", Code: "57P03", Message: "no primary"})
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// BenchmarkBatch walks a batch of the extended protocol as the session loop does.
func BenchmarkBatch(b *testing.B) {
	batch := AppendParse(nil, "s", "select abalance from pgbench_accounts where aid = $1", AppendOIDs(nil, 23))
	batch = AppendSync(AppendExecute(AppendDescribe(AppendBind(batch, "", "s", []byte("4711")), KindPortal, ""), "", 0))
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := batch; len(rest) > 0; {
			typ, body, next, err := NextMessage(rest)
			if err != nil {
				b.Fatal(err)
			}
			switch typ {
			case MsgParse:
				_, err = ParseParse(body)
			case MsgBind:
				_, err = ParseBind(body)
			case MsgDescribe:
				_, _, err = ParseDescribe(body)
			case MsgExecute:
				_, _, err = ParseExecute(body)
			}
			if err != nil {
				b.Fatal(err)
			}
			rest = next
		}
	}
}
