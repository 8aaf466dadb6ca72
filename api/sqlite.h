#pragma once
/// SQLite as values that fail with Result: one connection, prepared statements, transactions.
///
/// Not safe from several threads at once; the store guards it with its mutex.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace api {

struct CloseDatabase {
  void operator()(sqlite3* handle) const noexcept;
};
struct FinalizeStatement {
  void operator()(sqlite3_stmt* handle) const noexcept;
};

/// One statement, run once. Parameters are bound in order from 1.
class Statement {
 public:
  Statement(sqlite3* database, sqlite3_stmt* handle) : database_(database), handle_(handle) {}

  Statement& bind(std::string_view text);
  Statement& bind(int64_t number);
  /// True with a row to read, false at the end.
  base::Result<bool> step();
  /// Runs to the end, rows dropped.
  base::Result<> run();
  std::string text(int column) const;
  int64_t number(int column) const;

 private:
  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, FinalizeStatement> handle_;
  int bound_ = 0;
  int bind_failure_ = 0;
};

class Database {
 public:
  /// Opens or creates; a damaged file shows only at the first statement, see is_damaged().
  static base::Result<Database> open(const std::string& path);

  base::Result<Statement> prepare(std::string_view sql);
  /// Statements without parameters and results, several separated by `;`.
  base::Result<> execute(const std::string& sql);
  /// The one number a query gives.
  base::Result<int64_t> number(std::string_view sql);
  int64_t last_insert_id() const;
  int64_t changed_rows() const;
  /// Grows the file in steps of `bytes`, so that small writes on a full disk find room.
  void grow_in_steps_of(int bytes);
  /// True if the last failure says that the file is no intact database (not: that the disk is full
  /// or the file forbidden).
  bool is_damaged() const;

 private:
  explicit Database(sqlite3* handle) : handle_(handle) {}
  std::unique_ptr<sqlite3, CloseDatabase> handle_;
};

}  // namespace api
