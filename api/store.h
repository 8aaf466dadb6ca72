#pragma once
/// The durable state: records, the journal of plans, and the daemon's epoch, in one SQLite file.
///
/// WAL with synchronous=FULL, and exactly one connection: versions of SQLite before 3.51.3 can
/// damage a WAL database that two connections write. The connection is exclusive, so there is no
/// shared-memory file that a full disk could refuse or tear.
///
/// What cannot be read is never deleted and never taken for the truth: a damaged or foreign file
/// is renamed beside the new one, a damaged row moves into the table `quarantine`; both are
/// reported. Every row carries a checksum, since SQLite has none over its content.

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/reserve.h"
#include "api/sqlite.h"
#include "base/limits.h"
#include "reconciler/ports/store.h"

namespace api {

struct StoreOptions {
  std::string path;     ///< `state.db`; the reserve lies beside it.
  int64_t wall_ns = 0;  ///< For the names of what is set aside.
  int64_t reserve_bytes = base::limits::state_reserve_bytes;
};

class SqliteStore : public reconciler::StorePort {
 public:
  /// Opens or makes the store, and durably starts a new epoch. The caller holds the app root's
  /// lock. `notes()` tells what was found wrong.
  static base::Result<std::unique_ptr<SqliteStore>> open(const StoreOptions& options);
  ~SqliteStore() override;

  base::Result<reconciler::StoredState> load() override;
  base::Result<> put_container(const planner::ContainerRecord& record) override;
  base::Result<> erase_container(const std::string& id) override;
  base::Result<> put_network(const planner::NetworkRecord& record) override;
  base::Result<> erase_network(const std::string& name) override;
  base::Result<> put_volume(const planner::VolumeRecord& record) override;
  base::Result<> erase_volume(const std::string& name) override;
  base::Result<uint64_t> begin_plan(const planner::Plan& plan, const std::string& owner,
                                    int64_t wall_ns) override;
  base::Result<> record_step(uint64_t plan, const reconciler::JournalStep& step) override;
  base::Result<> finish_plan(uint64_t plan) override;

  /// Grows with every start of a daemon on this state.
  uint64_t epoch() const { return epoch_; }
  /// Sentences for the log and the user; grows while loading.
  std::vector<std::string> notes() const;

 private:
  SqliteStore(Database database, Reserve reserve, const StoreOptions& options)
      : options_(options), database_(std::move(database)), reserve_(std::move(reserve)) {}

  struct Row {
    std::string key;
    std::string content;
    std::string owner;       ///< Plans only.
    int64_t started_ns = 0;  ///< Plans only.
  };
  enum class Room { Ordinary, MayUseReserve };

  static base::Result<std::unique_ptr<SqliteStore>> open_once(const StoreOptions& options,
                                                              bool& unreadable);
  base::Result<> prepare_schema(bool& unreadable);
  base::Result<> begin_life();
  template <class Work>
  base::Result<> transaction(Room room, const Work& work);
  template <class Work>
  base::Result<> try_transaction(const Work& work);
  base::Result<bool> contains(const char* table, const std::string& key);
  base::Result<> put(const char* table, const std::string& key, const std::string& content);
  base::Result<> erase(const char* table, const std::string& key);
  base::Result<> grow_serial();
  base::Result<std::vector<Row>> intact_rows(const char* table);
  base::Result<> quarantine(const char* table, const Row& row, const std::string& reason);
  template <class Record, class Decode>
  base::Result<> load_records(const char* table, std::vector<Record>& into, const Decode& decode);
  base::Result<> load_plans(reconciler::StoredState& state);
  base::Result<> load_steps(reconciler::JournalPlan& plan);

  StoreOptions options_;
  mutable std::mutex mutex_;
  Database database_;               // guarded by mutex_
  Reserve reserve_;                 // guarded by mutex_
  std::vector<std::string> notes_;  // guarded by mutex_
  uint64_t epoch_ = 0;
};

}  // namespace api
