# ActiveRecord: its migrations, models and transactions, on its pool of ten connections.
require "json"
require "active_record"

AUTHORS, BOOKS, WORKERS, REQUESTS = 10, 5, 10, 30
PAUSE = 0.005 # a worker's think time while the primary dies, in seconds

$stdout.sync = true
ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL") + "&pool=#{WORKERS}")
ActiveRecord::Migration.verbose = false

class Author < ActiveRecord::Base
  has_many :books, dependent: :delete_all
end

class Book < ActiveRecord::Base
  belongs_to :author
end

class Initial < ActiveRecord::Migration[6.1]
  def change
    create_table(:authors) { |t| t.string :name, null: false, index: { unique: true } }
    create_table(:books) do |t|
      t.references :author, null: false, foreign_key: true
      t.text :title, null: false
    end
  end
end

class Visits < ActiveRecord::Migration[6.1]
  def up
    add_column :authors, :visits, :integer, null: false, default: 0
    Author.reset_column_information
    Author.create!(name: "greeted", visits: 1)
    Author.where(visits: 1).delete_all
  end

  def down
    remove_column :authors, :visits
  end
end

# MIGRATIONS stand in for the files of db/migrate.
MIGRATIONS = [[1, "Initial"], [2, "Visits"]].map do |version, name|
  ActiveRecord::MigrationProxy.new(name, version, __FILE__, "").tap { |p| p.define_singleton_method(:load_migration) { Object.const_get(name).new(name, version) } }
end

def migrate(direction, target)
  ActiveRecord::SchemaMigration.create_table
  ActiveRecord::InternalMetadata.create_table
  ActiveRecord::Migrator.new(direction, MIGRATIONS, ActiveRecord::SchemaMigration, target).migrate
  ActiveRecord::Base.connection.schema_cache.clear!
  [Author, Book].each(&:reset_column_information)
end

def report(step, **facts) = puts({ step: step, **facts }.to_json)
def wait = $stdin.gets&.strip || abort("the driver is gone")
def check(what, got, want) = got == want || abort("#{what}: got #{got.inspect}, not #{want.inspect}")

# pooled is what Rails does around each request: a connection of the pool, and back.
def pooled(&block) = ActiveRecord::Base.connection_pool.with_connection(&block)

def read(n)
  author = Author.includes(:books).find_by!(name: "author #{n}")
  author.books.size >= BOOKS or raise "too few books"
end

def plain(n) = pooled { read(n) }
def block(n) = pooled { Author.transaction { read(n) } }

def write(n, title)
  pooled do
    Author.transaction do
      author = Author.find_by!(name: "author #{n}")
      author.increment!(:visits)
      author.books.create!(title: title)
    end
  end
end

def workers = (0...WORKERS).map { |w| Thread.new { yield w } }.each { |t| t.report_on_exception = false }

def reading(step)
  workers do |w|
    REQUESTS.times { |i| ((i + w) % 10).zero? ? write(w + 1, "#{step} #{w} #{i}") : send(step, (w + i) % AUTHORS + 1) }
  end.each(&:join)
  report(step, requests: WORKERS * REQUESTS)
end

def failover
  seen, lock, warm, over = { requests: 0, written: 0, gave_up: 0, errors: Hash.new(0) }, Mutex.new, Queue.new, false
  request = lambda do |w, i|
    n = (w + i) % AUTHORS + 1
    case i % 3
    when 0 then plain(n)
    when 1 then block(n)
    else write(n, "failover #{w} #{i}")
    end
    i % 3 == 2
  end
  threads = workers do |w|
    i, more = 0, 10
    while more.positive?
      [false, true].each do |last|
        wrote = request.call(w, i)
        lock.synchronize { seen[:written] += 1 } if wrote
        break
      rescue StandardError => e
        code = e.cause.respond_to?(:result) && e.cause.result&.error_field(PG::PG_DIAG_SQLSTATE) || e.class.name
        warn "worker #{w}, request #{i}: #{code} #{e.message}"
        lock.synchronize { last ? seen[:gave_up] += 1 : seen[:errors][code] += 1 }
      end
      i += 1
      warm << w if i == 6
      more -= 1 if over
      sleep PAUSE
    end
    lock.synchronize { seen[:requests] += i }
  end
  WORKERS.times { warm.pop }
  report("working")
  wait
  over = true
  threads.each(&:join)
  report("failover", **seen)
end

def mine = ActiveRecord::Base.connection.tables & %w[authors books]

report("hello", tool: "ActiveRecord #{ActiveRecord.version}")
wait
[[:up, nil, 2], [:down, 0, 0], [:up, nil, 2]].each do |direction, target, want|
  migrate(direction, target)
  check("tables", mine.size, want)
end
report("migrate")
wait

(1..AUTHORS).each { |a| Author.create!(name: "author #{a}", books: (1..BOOKS).map { |b| Book.new(title: "book #{b}") }) }
extra = Author.create!(name: "extra")
extra.update!(visits: 3)
check("updated", Author.find_by!(name: "extra").visits, 3)
check("joined", Book.joins(:author).where(authors: { name: "author 3" }).count, BOOKS)
extra.destroy!
check("deleted", Author.exists?(name: "extra"), false)
report("crud")
wait

Author.transaction do
  one = Author.find_by!(name: "author 1")
  one.update!(visits: 10)
  begin
    Author.transaction(requires_new: true) do
      Author.where(name: "author 1").update_all(visits: 11)
      Author.create!(name: "author 2") # there is one
    end
  rescue ActiveRecord::RecordNotUnique
    check("behind the inner transaction", one.reload.visits, 10)
  end
end
check("behind the outer transaction", Author.find_by!(name: "author 1").visits, 10)
ActiveRecord::Base.clear_active_connections!
report("nested")

while %w[plain block].include?(step = wait)
  reading(step)
end
failover
wait
migrate(:down, 0)
check("tables", mine, [])
report("down")
