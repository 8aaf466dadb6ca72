#include "api/sqlite.h"

#include <cerrno>
#include <cstring>

#include <sqlite3.h>

namespace api {
namespace {

base::ErrorCode code_of(sqlite3* database, int status) {
  const int system_error = sqlite3_system_errno(database);
  const bool disk_full = system_error == ENOSPC || system_error == EDQUOT;
  switch (status & 0xff) {
    case SQLITE_FULL: return base::ErrorCode::NoSpace;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN: return disk_full ? base::ErrorCode::NoSpace : base::ErrorCode::Io;
    case SQLITE_PERM:
    case SQLITE_READONLY: return base::ErrorCode::Denied;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return base::ErrorCode::Busy;
    case SQLITE_MISUSE:
    case SQLITE_ERROR: return base::ErrorCode::Internal;
    default: return base::ErrorCode::Io;
  }
}

tl::unexpected<base::Error> failure(sqlite3* database, int status) {
  const int system_error = sqlite3_system_errno(database);
  const char* file = database != nullptr ? sqlite3_db_filename(database, "main") : nullptr;
  std::string text =
      fmt::format("state database '{}': {}", file ? file : "", sqlite3_errmsg(database));
  if (system_error != 0) text += fmt::format(" ({})", std::strerror(system_error));
  return tl::unexpected<base::Error>(base::Error(code_of(database, status), std::move(text)));
}

}  // namespace

void CloseDatabase::operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }
void FinalizeStatement::operator()(sqlite3_stmt* handle) const noexcept {
  sqlite3_finalize(handle);
}

Statement& Statement::bind(std::string_view text) {
  const int status = sqlite3_bind_text64(handle_.get(), ++bound_, text.data() ? text.data() : "",
                                         text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  if (status != SQLITE_OK) bind_failure_ = status;
  return *this;
}

Statement& Statement::bind(int64_t number) {
  const int status = sqlite3_bind_int64(handle_.get(), ++bound_, number);
  if (status != SQLITE_OK) bind_failure_ = status;
  return *this;
}

base::Result<bool> Statement::step() {
  if (bind_failure_ != 0) return failure(database_, bind_failure_);
  const int status = sqlite3_step(handle_.get());
  if (status == SQLITE_ROW) return true;
  if (status == SQLITE_DONE) return false;
  return failure(database_, status);
}

base::Result<> Statement::run() {
  while (TRY(step())) {
  }
  return {};
}

std::string Statement::text(int column) const {
  const unsigned char* bytes = sqlite3_column_text(handle_.get(), column);
  if (bytes == nullptr) return {};
  const int size = sqlite3_column_bytes(handle_.get(), column);
  return std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

int64_t Statement::number(int column) const { return sqlite3_column_int64(handle_.get(), column); }

base::Result<Database> Database::open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int status =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(handle);
  if (status != SQLITE_OK) return failure(handle, status);
  sqlite3_extended_result_codes(handle, 1);
  return database;
}

base::Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int status = sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                        &statement, nullptr);
  if (status != SQLITE_OK) return failure(handle_.get(), status);
  return Statement(handle_.get(), statement);
}

base::Result<> Database::execute(const std::string& sql) {
  const int status = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (status != SQLITE_OK) return failure(handle_.get(), status);
  return {};
}

base::Result<int64_t> Database::number(std::string_view sql) {
  Statement statement = TRY(prepare(sql));
  if (!TRY(statement.step()))
    return base::fail(base::ErrorCode::NotFound, "state database: no row for {}", sql);
  return statement.number(0);
}

int64_t Database::last_insert_id() const { return sqlite3_last_insert_rowid(handle_.get()); }
int64_t Database::changed_rows() const { return sqlite3_changes64(handle_.get()); }

void Database::grow_in_steps_of(int bytes) {
  sqlite3_file_control(handle_.get(), "main", SQLITE_FCNTL_CHUNK_SIZE, &bytes);
}

bool Database::is_damaged() const {
  const int status = sqlite3_extended_errcode(handle_.get()) & 0xff;
  return status == SQLITE_CORRUPT || status == SQLITE_NOTADB;
}

}  // namespace api
