# What a program that uses ruby-pg relies on.
require "pg"

E = ENV.to_h

def ok(what)
  puts "ok #{what}"
  $stdout.flush
end

def check(want, got, what = "")
  raise "#{what}: wanted #{want.inspect}, got #{got.inspect}" unless want == got
end

def connect(more = {})
  PG.connect({ host: E["PGHOST"], port: E["PGPORT"], user: E["PGUSER"], password: E["PGPASSWORD"], dbname: E["PGDATABASE"] }.merge(more))
end

def fails(error)
  yield
  raise "no error came, wanted #{error}"
rescue error => e
  e
end

c = connect
c.exec("SET client_min_messages = warning; DROP TABLE IF EXISTS ruby_t; CREATE TABLE ruby_t (id int PRIMARY KEY, v text)")

check([["42", "žluť 🐘", nil, "t", "\\x00ff"]], c.exec_params("SELECT $1::int, $2::text, $3::text, $4::bool, $5::bytea", [42, "žluť 🐘", nil, true, "\\x00ff"]).values)
c2 = connect
c2.type_map_for_results = PG::BasicTypeMapForResults.new(c2)
check([[42, 1.5, true, "x"]], c2.exec_params("SELECT 42, 1.5::float8, true, 'x'::text", [], 1).values)
c2.close
ok "types"

c.prepare("ins", "INSERT INTO ruby_t VALUES ($1, $2)")
c.prepare("sel", "SELECT v FROM ruby_t WHERE id = $1")
check(["id"], [c.exec("SELECT id FROM ruby_t").fname(0)])
check(1, c.describe_prepared("sel").nfields)
30.times do |i|
  c.exec_prepared("ins", [i, "v#{i}"])
  check("v#{i}", c.exec_prepared("sel", [i]).getvalue(0, 0))
end
fails(PG::DuplicatePstatement) { c.prepare("sel", "SELECT 1") }
c.exec("DEALLOCATE sel")
fails(PG::InvalidSqlStatementName) { c.exec_prepared("sel", [1]) }
c.prepare("sel", "SELECT id FROM ruby_t WHERE v = $1")
check("7", c.exec_prepared("sel", ["v7"]).getvalue(0, 0))
ok "prepared statements"

c.enter_pipeline_mode
100.times { |i| c.send_query_params("INSERT INTO ruby_t VALUES ($1, 'p') RETURNING id", [100 + i]) }
c.send_query_params("SELECT count(*) FROM ruby_t WHERE v = 'p'", [])
c.pipeline_sync
100.times { |i| check((100 + i).to_s, c.get_last_result.getvalue(0, 0)) }
check("100", c.get_last_result.getvalue(0, 0))
check(PG::PGRES_PIPELINE_SYNC, c.get_result.result_status)
c.send_query_params("INSERT INTO ruby_t VALUES (300, 'q')", [])
c.send_query_params("SELECT 1/0", [])
c.send_query_params("SELECT 1", [])
c.pipeline_sync
c.get_last_result
fails(PG::DivisionByZero) { c.get_last_result }
c.discard_results while c.pipeline_status == PG::PQ_PIPELINE_ABORTED
c.exit_pipeline_mode
check("0", c.exec("SELECT count(*) FROM ruby_t WHERE id = 300").getvalue(0, 0))
check([["1"], ["2"]], [].tap { |rows| c.send_query("SELECT 1; SELECT 2"); while (r = c.get_result); rows << r.values[0]; end })
ok "pipelines"

c.copy_data("COPY ruby_t FROM STDIN") { 1000.times { |i| c.put_copy_data("#{1000 + i}\tcopied\n") } }
rows = 0
c.copy_data("COPY (SELECT * FROM ruby_t WHERE v = 'copied') TO STDOUT") { rows += 1 while c.get_copy_data }
check(1000, rows)
fails(PG::InvalidTextRepresentation) { c.copy_data("COPY ruby_t FROM STDIN") { c.put_copy_data("x\ty\n") } }
fails(ZeroDivisionError) { c.copy_data("COPY ruby_t FROM STDIN") { c.put_copy_data("5000\tnever\n"); 1 / 0 } }
check("0", c.exec("SELECT count(*) FROM ruby_t WHERE id = 5000").getvalue(0, 0))
ok "COPY both ways"

other = connect
other.exec("LISTEN ruby_ch")
c.exec("NOTIFY ruby_ch, 'hello'")
check("hello", [].tap { |got| other.wait_for_notify(30) { |_ch, _pid, payload| got << payload } }.first)
check("1", other.exec("SELECT 1").getvalue(0, 0))
other.close
ok "LISTEN"

c.send_query("SELECT pg_sleep(60)")
stop = false
canceller = Thread.new { until stop; sleep 0.2; c.cancel; end }
fails(PG::QueryCanceled) { c.get_last_result }
stop = true
canceller.join
begin
  c.exec("SELECT 1")
rescue PG::QueryCanceled
  nil # one more request was on its way
end
check("1", c.exec("SELECT 1").getvalue(0, 0))
ok "cancel"

text = "0123456789abcdef" * (1 << 20)
c.exec_params("INSERT INTO ruby_t VALUES (9000, $1)", [text])
check(true, text == c.exec("SELECT v FROM ruby_t WHERE id = 9000").getvalue(0, 0))
c.send_query("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
c.set_single_row_mode
rows = 0
while (r = c.get_result)
  r.check
  rows += r.ntuples
end
check(20000, rows)
ok "large rows"

fails(PG::UniqueViolation) { c.exec("INSERT INTO ruby_t VALUES (1, 'again')") }
fails(PG::UndefinedTable) { c.exec("SELECT * FROM nope") }
check("1", c.exec("SELECT 1").getvalue(0, 0))
fails(PG::DivisionByZero) { c.transaction { |t| t.exec("INSERT INTO ruby_t VALUES (9100, 'x')"); t.exec("SELECT 1/0") } }
check("0", c.exec("SELECT count(*) FROM ruby_t WHERE id = 9100").getvalue(0, 0))
c.transaction do |t|
  t.exec("SAVEPOINT s")
  begin
    t.exec("SELECT 1/0")
  rescue PG::DivisionByZero
    check(PG::PQTRANS_INERROR, t.transaction_status)
    t.exec("ROLLBACK TO s")
  end
  t.exec("INSERT INTO ruby_t VALUES (9101, 'x')")
end
check("1", c.exec("SELECT count(*) FROM ruby_t WHERE id = 9101").getvalue(0, 0))
c.close
ok "going on after errors"

h = E["PGHOST"]
[[E["DEAD_PORT"], E["PGPORT"], "any", "off"], [E["STANDBY_PORT"], E["PGPORT"], "read-write", "off"],
 [E["PGPORT"], E["STANDBY_PORT"], "standby", "on"], [E["PGPORT"], E["STANDBY_PORT"], "read-only", "on"]].each do |first, second, attrs, read_only|
  m = connect(host: "#{h},#{h}", port: "#{first},#{second}", target_session_attrs: attrs, connect_timeout: 10)
  check(read_only, m.exec("SHOW transaction_read_only").getvalue(0, 0), attrs)
  m.close
end
ok "several hosts and target_session_attrs"
