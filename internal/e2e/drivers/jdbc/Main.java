// What a program that uses pgJDBC relies on.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.Properties;

import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Main {
  static final String HOST = System.getenv("PGHOST"), PORT = System.getenv("PGPORT");

  interface Body { void run() throws Exception; }

  static void ok(String what) { System.out.println("ok " + what); }

  static void check(Object want, Object got) {
    if (!want.equals(got)) throw new AssertionError("wanted " + want + ", got " + got);
  }

  // fails runs a body that must fail with that SQLSTATE.
  static void fails(String state, Body body) throws Exception {
    try {
      body.run();
    } catch (SQLException e) {
      check(state, e.getSQLState());
      return;
    }
    throw new AssertionError("no error came, wanted " + state);
  }

  static Connection connect(String hosts, String... more) throws SQLException {
    Properties p = new Properties();
    p.setProperty("user", System.getenv("PGUSER"));
    p.setProperty("password", System.getenv("PGPASSWORD"));
    p.setProperty("sslmode", "disable");
    for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
    return DriverManager.getConnection("jdbc:postgresql://" + hosts + "/" + System.getenv("PGDATABASE"), p);
  }

  static String one(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
      r.next();
      return r.getString(1);
    }
  }

  static void exec(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement()) { s.execute(sql); }
  }

  static void prepared(Connection c) throws Exception {
    exec(c, "DROP TABLE IF EXISTS jdbc_t; CREATE TABLE jdbc_t (id int PRIMARY KEY, v text)");
    try (PreparedStatement ins = c.prepareStatement("INSERT INTO jdbc_t VALUES (?, ?)");
        PreparedStatement sel = c.prepareStatement("SELECT v FROM jdbc_t WHERE id = ?")) {
      for (int i = 0; i < 30; i++) { // named on the server from the fifth on
        ins.setInt(1, i);
        ins.setString(2, "v" + i);
        check(1, ins.executeUpdate());
        sel.setInt(1, i);
        try (ResultSet r = sel.executeQuery()) {
          r.next();
          check("v" + i, r.getString(1));
        }
      }
      exec(c, "ALTER TABLE jdbc_t ADD COLUMN more int");
      sel.setInt(1, 3);
      try (ResultSet r = sel.executeQuery()) {
        r.next();
        check("v3", r.getString(1));
      }
    }
    try (PreparedStatement all = c.prepareStatement("SELECT * FROM jdbc_t WHERE id = 1")) {
      for (int i = 0; i < 8; i++) all.executeQuery().close();
      exec(c, "ALTER TABLE jdbc_t DROP COLUMN more");
      all.executeQuery().close(); // the driver prepares again after 0A000 outside of a transaction
    }
    ok("prepared statements beyond the threshold");
  }

  static void batches(Connection c) throws Exception {
    try (PreparedStatement ins = c.prepareStatement("INSERT INTO jdbc_t VALUES (?, 'b')", Statement.RETURN_GENERATED_KEYS)) {
      for (int i = 100; i < 600; i++) {
        ins.setInt(1, i);
        ins.addBatch();
      }
      check(500, ins.executeBatch().length);
    }
    check("500", one(c, "SELECT count(*) FROM jdbc_t WHERE v = 'b'"));
    c.setAutoCommit(false);
    try (PreparedStatement ins = c.prepareStatement("INSERT INTO jdbc_t VALUES (?, 'c')")) {
      for (int id : new int[] {700, 701, 100, 702}) {
        ins.setInt(1, id);
        ins.addBatch();
      }
      try {
        ins.executeBatch();
        throw new AssertionError("a duplicate key was taken");
      } catch (BatchUpdateException e) {
        check("23505", e.getSQLState());
      }
    }
    c.rollback();
    c.setAutoCommit(true);
    check("0", one(c, "SELECT count(*) FROM jdbc_t WHERE v = 'c'"));
    try (Statement s = c.createStatement()) {
      check(true, s.execute("SELECT 1; UPDATE jdbc_t SET v = 'd' WHERE id = 1; SELECT 2"));
      check(false, s.getMoreResults());
      check(1, s.getUpdateCount());
      check(true, s.getMoreResults());
    }
    ok("batches");
  }

  static void copies(Connection c) throws Exception {
    CopyManager m = c.unwrap(PGConnection.class).getCopyAPI();
    StringBuilder b = new StringBuilder();
    for (int i = 1000; i < 3000; i++) b.append(i).append("\tcopied\n");
    check(2000L, m.copyIn("COPY jdbc_t FROM STDIN", new StringReader(b.toString())));
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    check(2000L, m.copyOut("COPY (SELECT * FROM jdbc_t WHERE id >= 1000 ORDER BY id) TO STDOUT", out));
    check(b.toString(), out.toString(StandardCharsets.UTF_8));
    fails("22P02", () -> m.copyIn("COPY jdbc_t FROM STDIN", new StringReader("x\ty\n")));
    check("1", one(c, "SELECT 1"));
    ok("COPY both ways");
  }

  static void listen(Connection c) throws Exception {
    try (Connection l = connect(HOST + ":" + PORT)) {
      exec(l, "LISTEN jdbc_ch");
      exec(c, "NOTIFY jdbc_ch, 'hello'");
      check("hello", l.unwrap(PGConnection.class).getNotifications(30000)[0].getParameter());
      check("1", one(l, "SELECT 1"));
    }
    ok("LISTEN");
  }

  static void cancel(Connection c) throws Exception {
    try (Statement s = c.createStatement()) {
      Thread t = new Thread(() -> {
        try {
          while (true) {
            Thread.sleep(200);
            s.cancel();
          }
        } catch (InterruptedException | SQLException e) {
          return;
        }
      });
      t.start();
      fails("57014", () -> s.executeQuery("SELECT pg_sleep(60)"));
      t.interrupt();
      t.join();
    }
    try {
      one(c, "SELECT 1");
    } catch (SQLException e) {
      check("57014", e.getSQLState()); // one more request was on its way
    }
    try (Statement s = c.createStatement()) {
      s.setQueryTimeout(1);
      fails("57014", () -> s.executeQuery("SELECT pg_sleep(60)"));
    }
    check("1", one(c, "SELECT 1"));
    ok("cancel");
  }

  static void large(Connection c) throws Exception {
    String text = "0123456789abcdef".repeat(1 << 20);
    try (PreparedStatement ins = c.prepareStatement("INSERT INTO jdbc_t VALUES (9000, ?)")) {
      ins.setString(1, text);
      ins.executeUpdate();
    }
    check(true, text.equals(one(c, "SELECT v FROM jdbc_t WHERE id = 9000")));
    c.setAutoCommit(false);
    try (Statement s = c.createStatement()) { // fetched through a portal, 500 rows at a time
      s.setFetchSize(500);
      int n = 0;
      try (ResultSet r = s.executeQuery("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")) {
        while (r.next()) n++;
      }
      check(20000, n);
    }
    c.commit();
    c.setAutoCommit(true);
    ok("large rows");
  }

  static void recovery(Connection c) throws Exception {
    fails("23505", () -> exec(c, "INSERT INTO jdbc_t VALUES (1, 'again')"));
    fails("42P01", () -> exec(c, "SELECT * FROM nope"));
    c.setAutoCommit(false);
    exec(c, "INSERT INTO jdbc_t VALUES (9100, 'x')");
    Savepoint s = c.setSavepoint();
    fails("22012", () -> exec(c, "SELECT 1/0"));
    fails("25P02", () -> exec(c, "SELECT 1"));
    c.rollback(s);
    exec(c, "INSERT INTO jdbc_t VALUES (9101, 'x')");
    c.commit();
    c.setAutoCommit(true);
    check("2", one(c, "SELECT count(*) FROM jdbc_t WHERE id IN (9100, 9101)"));
    // autosave sets a savepoint inside of the batch, before each statement.
    try (Connection a = connect(HOST + ":" + PORT, "autosave", "always")) {
      a.setAutoCommit(false);
      exec(a, "INSERT INTO jdbc_t VALUES (9102, 'x')");
      fails("22012", () -> exec(a, "SELECT 1/0"));
      exec(a, "INSERT INTO jdbc_t VALUES (9103, 'x')");
      a.commit();
    }
    check("2", one(c, "SELECT count(*) FROM jdbc_t WHERE id IN (9102, 9103)"));
    try (Connection r = connect(HOST + ":" + PORT)) {
      r.setReadOnly(true);
      r.setAutoCommit(false);
      check("2", one(r, "SELECT count(*) FROM jdbc_t WHERE id IN (9102, 9103)"));
      fails("25006", () -> exec(r, "DELETE FROM jdbc_t"));
      r.rollback();
    }
    ok("going on after errors");
  }

  // transactions come with their BEGIN in one batch with the first statement. Behind pgweir those that only read are not
  // the primary's, once a standby is fresh enough: declared ones, or with transactions: optimistic all.
  static void transactions(boolean readOnly) throws Exception {
    String primary = System.getenv("PRIMARY_PORT");
    long end = System.nanoTime() + 20_000_000_000L;
    try (Connection c = connect(HOST + ":" + PORT, "ApplicationName", "jdbc tx");
        Connection direct = connect(HOST + ":" + (primary == null ? PORT : primary))) {
      String here = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jdbc tx' AND state = 'idle in transaction'";
      c.setReadOnly(readOnly);
      c.setAutoCommit(false);
      int elsewhere = 0;
      for (int i = 0; i < 8 || primary != null && elsewhere < 8; i++) { // more than JDBC's prepareThreshold
        one(c, "SELECT v FROM jdbc_t WHERE id = 1");
        if (one(direct, here).equals("0")) elsewhere++;
        c.commit();
        if (System.nanoTime() > end) throw new AssertionError("of " + i + " transactions " + elsewhere + " ran on standbys");
      }
      if (readOnly) return;
      one(c, "SELECT v FROM jdbc_t WHERE id = 1");
      exec(c, "INSERT INTO jdbc_t VALUES (9200, 'moved')");
      check("moved", one(c, "SELECT v FROM jdbc_t WHERE id = 9200"));
      check("1", one(direct, here));
      c.rollback();
    }
  }

  static void modes() throws Exception {
    for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
      try (Connection c = connect(HOST + ":" + PORT, "preferQueryMode", mode);
          PreparedStatement s = c.prepareStatement("SELECT ?::int + 1")) {
        for (int i = 0; i < 8; i++) {
          s.setInt(1, i);
          try (ResultSet r = s.executeQuery()) {
            r.next();
            check(i + 1, r.getInt(1));
          }
        }
      }
    }
    ok("query modes");
  }

  static void hosts() throws Exception {
    String p = HOST + ":" + PORT, s = HOST + ":" + System.getenv("STANDBY_PORT"), d = HOST + ":" + System.getenv("DEAD_PORT");
    String[][] cases = {{d + "," + p, "any", "off"}, {s + "," + p, "primary", "off"}, {p + "," + s, "secondary", "on"}, {p + "," + s, "preferSecondary", "on"}};
    for (String[] k : cases) {
      try (Connection c = connect(k[0], "targetServerType", k[1], "hostRecheckSeconds", "0")) {
        check(k[2], one(c, "SHOW transaction_read_only"));
      }
    }
    ok("several hosts and targetServerType");
  }

  public static void main(String[] args) throws Exception {
    try (Connection c = connect(HOST + ":" + PORT)) {
      prepared(c);
      batches(c);
      copies(c);
      listen(c);
      cancel(c);
      large(c);
      recovery(c);
    }
    transactions(true);
    if (System.getenv("PRIMARY_PORT") == null || System.getenv("OPTIMISTIC") != null) transactions(false);
    ok("transactions");
    modes();
    hosts();
  }
}
