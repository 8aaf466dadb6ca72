#include "api/store.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>
#include <variant>

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/overloaded.h"
#include "base/text.h"

namespace api {

using base::ErrorCode;
using reconciler::JournalPlan;
using reconciler::JournalStep;
using reconciler::StepOutcome;

namespace {

constexpr int64_t application_id = 0x636f6e74;  // "cont"
constexpr int64_t schema_version = 1;

constexpr const char* schema = R"sql(
  CREATE TABLE meta (key TEXT PRIMARY KEY, text TEXT, number INTEGER) WITHOUT ROWID;
  CREATE TABLE containers (key TEXT PRIMARY KEY, content TEXT NOT NULL, checksum INTEGER NOT NULL);
  CREATE TABLE networks (key TEXT PRIMARY KEY, content TEXT NOT NULL, checksum INTEGER NOT NULL);
  CREATE TABLE volumes (key TEXT PRIMARY KEY, content TEXT NOT NULL, checksum INTEGER NOT NULL);
  CREATE TABLE plans (
    id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL, checksum INTEGER NOT NULL,
    owner TEXT NOT NULL, started_wall_ns INTEGER NOT NULL);
  CREATE TABLE steps (
    plan INTEGER NOT NULL REFERENCES plans(id) ON DELETE CASCADE, step INTEGER NOT NULL,
    outcome INTEGER NOT NULL, error TEXT NOT NULL, PRIMARY KEY (plan, step)) WITHOUT ROWID;
  CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, key TEXT NOT NULL,
    content TEXT NOT NULL, reason TEXT NOT NULL, wall_ns INTEGER NOT NULL);
)sql";

/// FNV-1a over key and content, to notice flipped bits, not malice.
int64_t checksum_of(std::string_view key, std::string_view content) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](char byte) { hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3; };
  std::for_each(key.begin(), key.end(), add);
  add('\0');
  std::for_each(content.begin(), content.end(), add);
  return static_cast<int64_t>(hash);
}

std::string reserve_path(const std::string& database) { return database + ".reserve"; }

bool file_has_content(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

/// Renames the database and its log together: the one is not readable without the other.
base::Result<std::string> set_aside(const StoreOptions& options) {
  std::string stamp = base::format_wall_time(options.wall_ns);
  std::replace(stamp.begin(), stamp.end(), ':', '-');
  std::string target = options.path + ".unreadable-" + stamp;
  for (int n = 2; base::path_exists(target); ++n)
    target = fmt::format("{}.unreadable-{}-{}", options.path, stamp, n);
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    const std::string from = options.path + suffix;
    if (!base::path_exists(from)) continue;
    if (::rename(from.c_str(), (target + suffix).c_str()) != 0)
      return base::fail_errno(errno, fmt::format("set '{}' aside", from));
  }
  const size_t slash = options.path.rfind('/');
  TRY(base::sync_directory(slash == std::string::npos ? "." : options.path.substr(0, slash)));
  return target;
}

/// What a plan that only takes away may use of the reserve, a plan that makes things may not.
bool only_takes_away(const planner::Plan& plan) {
  const auto takes_away = [](const planner::Step& step) {
    return std::visit(base::overloaded{
                          [](const planner::StopContainer&) { return true; },
                          [](const planner::KillContainer&) { return true; },
                          [](const planner::RemoveContainer&) { return true; },
                          [](const planner::RemoveNetwork&) { return true; },
                          [](const planner::RemoveVolume&) { return true; },
                          [](const auto&) { return false; },
                      },
                      step.operation);
  };
  return std::all_of(plan.steps.begin(), plan.steps.end(), takes_away);
}

}  // namespace

// ---- opening

base::Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const StoreOptions& options) {
  Reserve reserve(reserve_path(options.path), options.reserve_bytes);
  std::vector<std::string> notes;
  bool gave_up_reserve = false;
  bool replaced = false;
  for (;;) {
    bool unreadable = false;
    auto opened = open_once(options, unreadable);
    if (opened) {
      (*opened)->notes_ = std::move(notes);
      if (const auto held = (*opened)->reserve_.hold(); !held)
        (*opened)->notes_.push_back("no room is kept for a full disk: " + held.error().to_string());
      return opened;
    }
    if (opened.error().code() == ErrorCode::NoSpace && !std::exchange(gave_up_reserve, true) &&
        reserve.give_up())
      continue;
    if (!unreadable || std::exchange(replaced, true))
      return tl::unexpected<base::Error>(
          std::move(opened.error()).during(fmt::format("open '{}'", options.path)));
    const std::string target = TRY(set_aside(options));
    notes.push_back(fmt::format(
        "the state in '{}' cannot be read ({}); it was set aside as '{}' and a new one begun. "
        "Containers that still run are not known any more: restore a copy of the file, or end them",
        options.path, opened.error().to_string(), target));
  }
}

base::Result<std::unique_ptr<SqliteStore>> SqliteStore::open_once(const StoreOptions& options,
                                                                  bool& unreadable) {
  Database database = TRY(Database::open(options.path));
  std::unique_ptr<SqliteStore> store(new SqliteStore(
      std::move(database), Reserve(reserve_path(options.path), options.reserve_bytes), options));
  base::Result<> ready = store->prepare_schema(unreadable);
  if (ready) ready = store->begin_life();
  if (ready) return store;
  unreadable = unreadable || store->database_.is_damaged();
  return tl::unexpected<base::Error>(std::move(ready.error()));
}

base::Result<> SqliteStore::prepare_schema(bool& unreadable) {
  const bool is_new = !file_has_content(options_.path);
  // Exclusive comes before the first look at the file, or a shared-memory file would be made.
  TRY(
      database_.execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA foreign_keys=ON;"
                        "PRAGMA cache_size=-1024; PRAGMA temp_store=MEMORY;"
                        "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON"));
  database_.grow_in_steps_of(base::limits::state_growth_step_bytes);
  TRY(database_.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL"));
  const int64_t made_by = TRY(database_.number("PRAGMA application_id"));
  const int64_t version = TRY(database_.number("PRAGMA user_version"));
  const int64_t tables = TRY(database_.number("SELECT count(*) FROM sqlite_master"));
  if (is_new || (made_by == 0 && version == 0 && tables == 0)) {
    // One transaction: a crash leaves an empty file, which is new again.
    return database_.execute(fmt::format(
        "BEGIN IMMEDIATE; {} INSERT INTO meta VALUES ('lineage', '{}', 0), ('serial', NULL, 0),"
        "('epoch', NULL, 0), ('clean', NULL, 1);"
        "PRAGMA application_id={}; PRAGMA user_version={}; COMMIT",
        schema, base::random_uuid(), application_id, schema_version));
  }
  if (made_by != application_id || version != schema_version) {
    unreadable = true;
    return base::fail(ErrorCode::Unsupported,
                      "it has format {} of program {:#x}, this daemon reads format {} of {:#x}",
                      version, made_by, schema_version, application_id);
  }
  Statement check = TRY(database_.prepare("PRAGMA quick_check(1)"));
  const bool has_row = TRY(check.step());
  if (!has_row || check.text(0) != "ok") {
    unreadable = true;
    return base::fail(ErrorCode::Io, "it is damaged: {}", has_row ? check.text(0) : "no answer");
  }
  return {};
}

base::Result<> SqliteStore::begin_life() {
  TRY(transaction(Room::Ordinary, [&]() -> base::Result<> {
    TRY(TRY(database_.prepare("UPDATE meta SET number = number + 1 WHERE key = 'epoch'")).run());
    if (database_.changed_rows() != 1)
      return base::fail(ErrorCode::Io, "it is damaged: there is no epoch");
    return TRY(database_.prepare("UPDATE meta SET number = 0 WHERE key = 'clean'")).run();
  }));
  epoch_ =
      static_cast<uint64_t>(TRY(database_.number("SELECT number FROM meta WHERE key = 'epoch'")));
  return {};
}

SqliteStore::~SqliteStore() {
  // Tells a start after a clean stop from one after a crash; losing it costs nothing.
  (void)database_.execute("UPDATE meta SET number = 1 WHERE key = 'clean'").has_value();
}

std::vector<std::string> SqliteStore::notes() const {
  const std::lock_guard guard(mutex_);
  return notes_;
}

// ---- writing

template <class Work>
base::Result<> SqliteStore::try_transaction(const Work& work) {
  TRY(database_.execute("BEGIN IMMEDIATE"));
  base::Result<> done = work();
  if (done) done = database_.execute("COMMIT");
  // A failed COMMIT leaves the transaction open; after some failures SQLite has ended it itself,
  // and then there is nothing to roll back.
  if (!done) (void)database_.execute("ROLLBACK").has_value();
  return done;
}

template <class Work>
base::Result<> SqliteStore::transaction(Room room, const Work& work) {
  base::Result<> done = try_transaction(work);
  if (done || done.error().code() != ErrorCode::NoSpace || room != Room::MayUseReserve) return done;
  if (!reserve_.give_up()) return done;
  notes_.push_back("the disk is full: the room kept for stopping and removing is in use now");
  return try_transaction(work);
}

base::Result<> SqliteStore::grow_serial() {
  return TRY(database_.prepare("UPDATE meta SET number = number + 1 WHERE key = 'serial'")).run();
}

base::Result<bool> SqliteStore::contains(const char* table, const std::string& key) {
  Statement count =
      TRY(database_.prepare(fmt::format("SELECT count(*) FROM {} WHERE key = ?", table)));
  return TRY(count.bind(key).step()) && count.number(0) > 0;
}

base::Result<> SqliteStore::put(const char* table, const std::string& key,
                                const std::string& content) {
  const std::lock_guard guard(mutex_);
  // What exists may be marked as stopped on a full disk; what is new has to wait for room.
  const Room room = TRY(contains(table, key)) ? Room::MayUseReserve : Room::Ordinary;
  return transaction(room, [&]() -> base::Result<> {
    Statement statement = TRY(database_.prepare(fmt::format(
        "INSERT INTO {} (key, content, checksum) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
        "SET content = excluded.content, checksum = excluded.checksum",
        table)));
    TRY(statement.bind(key).bind(content).bind(checksum_of(key, content)).run());
    return grow_serial();
  });
}

base::Result<> SqliteStore::erase(const char* table, const std::string& key) {
  const std::lock_guard guard(mutex_);
  TRY(transaction(Room::MayUseReserve, [&]() -> base::Result<> {
    Statement statement =
        TRY(database_.prepare(fmt::format("DELETE FROM {} WHERE key = ?", table)));
    TRY(statement.bind(key).run());
    return grow_serial();
  }));
  // Something went away: perhaps there is room for the reserve again.
  (void)reserve_.hold().has_value();
  return {};
}

base::Result<> SqliteStore::put_container(const planner::ContainerRecord& record) {
  TRY_DURING(put("containers", record.id, base::dump_json(planner::to_json(record))),
             "write container '{}'", record.id);
  return {};
}

base::Result<> SqliteStore::erase_container(const std::string& id) {
  TRY_DURING(erase("containers", id), "forget container '{}'", id);
  return {};
}

base::Result<> SqliteStore::put_network(const planner::NetworkRecord& record) {
  TRY_DURING(put("networks", record.name, base::dump_json(planner::to_json(record))),
             "write network '{}'", record.name);
  return {};
}

base::Result<> SqliteStore::erase_network(const std::string& name) {
  TRY_DURING(erase("networks", name), "forget network '{}'", name);
  return {};
}

base::Result<> SqliteStore::put_volume(const planner::VolumeRecord& record) {
  TRY_DURING(put("volumes", record.name, base::dump_json(planner::to_json(record))),
             "write volume '{}'", record.name);
  return {};
}

base::Result<> SqliteStore::erase_volume(const std::string& name) {
  TRY_DURING(erase("volumes", name), "forget volume '{}'", name);
  return {};
}

// ---- the journal

base::Result<uint64_t> SqliteStore::begin_plan(const planner::Plan& plan, const std::string& owner,
                                               int64_t wall_ns) {
  const std::lock_guard guard(mutex_);
  const std::string content = base::dump_json(planner::to_json(plan));
  const Room room = only_takes_away(plan) ? Room::MayUseReserve : Room::Ordinary;
  int64_t id = 0;
  TRY(transaction(room, [&]() -> base::Result<> {
    Statement insert = TRY(database_.prepare(
        "INSERT INTO plans (content, checksum, owner, started_wall_ns) VALUES (?, ?, ?, ?)"));
    TRY(insert.bind(content).bind(checksum_of("", content)).bind(owner).bind(wall_ns).run());
    id = database_.last_insert_id();
    return {};
  }));
  return static_cast<uint64_t>(id);
}

base::Result<> SqliteStore::record_step(uint64_t plan, const JournalStep& step) {
  const std::lock_guard guard(mutex_);
  return transaction(Room::MayUseReserve, [&]() -> base::Result<> {
    Statement upsert =
        TRY(database_.prepare("INSERT INTO steps (plan, step, outcome, error) VALUES (?, ?, ?, ?) "
                              "ON CONFLICT (plan, step) DO UPDATE SET outcome = excluded.outcome, "
                              "error = excluded.error"));
    return upsert.bind(static_cast<int64_t>(plan))
        .bind(static_cast<int64_t>(step.step.value))
        .bind(static_cast<int64_t>(step.outcome))
        .bind(step.error)
        .run();
  });
}

base::Result<> SqliteStore::finish_plan(uint64_t plan) {
  const std::lock_guard guard(mutex_);
  return transaction(Room::MayUseReserve, [&]() -> base::Result<> {
    Statement remove = TRY(database_.prepare("DELETE FROM plans WHERE id = ?"));
    return remove.bind(static_cast<int64_t>(plan)).run();  // its steps go with it
  });
}

// ---- reading

base::Result<std::vector<SqliteStore::Row>> SqliteStore::intact_rows(const char* table) {
  const bool plans = std::string_view(table) == "plans";
  Statement rows = TRY(database_.prepare(
      plans ? "SELECT id, content, checksum, owner, started_wall_ns FROM plans ORDER BY id"
            : fmt::format("SELECT key, content, checksum FROM {} ORDER BY key", table)));
  std::vector<Row> intact;
  std::vector<Row> broken;
  while (TRY(rows.step())) {
    Row row{.key = rows.text(0), .content = rows.text(1)};
    const bool matches = checksum_of(plans ? "" : row.key, row.content) == rows.number(2);
    if (plans) row.owner = rows.text(3);
    if (plans) row.started_ns = rows.number(4);
    (matches ? intact : broken).push_back(std::move(row));
  }
  for (const Row& row : broken) TRY(quarantine(table, row, "its checksum does not match"));
  return intact;
}

base::Result<> SqliteStore::quarantine(const char* table, const Row& row,
                                       const std::string& reason) {
  notes_.push_back(fmt::format("'{}' in {} cannot be read ({}); it was moved to the quarantine",
                               base::escape_controls(row.key), table, reason));
  return transaction(Room::MayUseReserve, [&]() -> base::Result<> {
    Statement keep = TRY(database_.prepare(
        "INSERT INTO quarantine (source, key, content, reason, wall_ns) VALUES (?, ?, ?, ?, ?)"));
    TRY(keep.bind(table).bind(row.key).bind(row.content).bind(reason).bind(options_.wall_ns).run());
    const char* key = std::string_view(table) == "plans" ? "id" : "key";
    Statement drop = TRY(database_.prepare(fmt::format("DELETE FROM {} WHERE {} = ?", table, key)));
    return drop.bind(row.key).run();
  });
}

template <class Record, class Decode>
base::Result<> SqliteStore::load_records(const char* table, std::vector<Record>& into,
                                         const Decode& decode) {
  for (const Row& row : TRY(intact_rows(table))) {
    base::Result<nlohmann::json> parsed = base::parse_json(row.content);
    base::Result<Record> record =
        parsed ? decode(*parsed) : tl::unexpected<base::Error>(std::move(parsed.error()));
    if (record)
      into.push_back(std::move(*record));
    else
      TRY(quarantine(table, row, record.error().to_string()));
  }
  return {};
}

base::Result<> SqliteStore::load_steps(JournalPlan& plan) {
  for (const planner::Step& step : plan.plan.steps)
    plan.steps.push_back({.step = step.id, .outcome = StepOutcome::Pending, .error = {}});
  Statement rows = TRY(database_.prepare("SELECT step, outcome, error FROM steps WHERE plan = ?"));
  rows.bind(static_cast<int64_t>(plan.id));
  while (TRY(rows.step())) {
    const int64_t outcome = rows.number(1);
    for (JournalStep& step : plan.steps) {
      if (static_cast<int64_t>(step.step.value) != rows.number(0)) continue;
      // An outcome nobody knows says only that the step was begun: it is looked at again.
      const bool known = outcome >= 0 && outcome <= static_cast<int64_t>(StepOutcome::Skipped);
      step.outcome = known ? static_cast<StepOutcome>(outcome) : StepOutcome::Started;
      step.error = rows.text(2);
    }
  }
  return {};
}

base::Result<> SqliteStore::load_plans(reconciler::StoredState& state) {
  for (const Row& row : TRY(intact_rows("plans"))) {
    base::Result<nlohmann::json> parsed = base::parse_json(row.content);
    base::Result<planner::Plan> plan = parsed
                                           ? planner::plan_from_json(*parsed)
                                           : tl::unexpected<base::Error>(std::move(parsed.error()));
    if (!plan) {
      TRY(quarantine("plans", row, plan.error().to_string()));
      continue;
    }
    JournalPlan open{
        .plan = std::move(*plan), .owner = row.owner, .started_wall_ns = row.started_ns};
    open.id = std::strtoull(row.key.c_str(), nullptr, 10);
    TRY(load_steps(open));
    state.open_plans.push_back(std::move(open));
  }
  return {};
}

base::Result<reconciler::StoredState> SqliteStore::load() {
  const std::lock_guard guard(mutex_);
  reconciler::StoredState state;
  {
    Statement meta =
        TRY(database_.prepare("SELECT (SELECT text FROM meta WHERE key = 'lineage'),"
                              "(SELECT number FROM meta WHERE key = 'serial')"));
    if (!TRY(meta.step())) return base::fail(ErrorCode::Io, "state database: no lineage");
    state.lineage = meta.text(0);
    state.serial = static_cast<uint64_t>(meta.number(1));
  }
  TRY(load_records("containers", state.containers, planner::container_record_from_json));
  TRY(load_records("networks", state.networks, planner::network_record_from_json));
  TRY(load_records("volumes", state.volumes, planner::volume_record_from_json));
  TRY(load_plans(state));
  return state;
}

}  // namespace api
