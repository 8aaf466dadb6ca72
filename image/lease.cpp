#include "image/lease.h"

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/store.h"

namespace image {
namespace {

namespace fs = std::filesystem;
using base::ErrorCode;
using base::fail;
using base::Result;
namespace limits = base::limits;

/// A lease's file: its name, then the digests it keeps, one a line. A line that a loss of power
/// cut is no digest. The file's time is when the lease was last used.
constexpr uint64_t digest_line_bytes = 7 + 64 + 1;
constexpr uint64_t lease_file_bytes_max =
    limits::image_lease_name_bytes_max + 1 + limits::image_lease_digests_max * digest_line_bytes;

std::shared_ptr<LeaseRecord> read_lease(const std::string& path) {
  auto lease = std::make_shared<LeaseRecord>();
  lease->path = path;
  const Result<std::string> text = base::read_file(path, lease_file_bytes_max);
  if (!text) return lease;
  bool is_first = true;
  for (const std::string& line : base::split(*text, '\n')) {
    if (std::exchange(is_first, false))
      lease->name = line;
    else if (is_digest(line))
      lease->digests.insert(line);
  }
  return lease;
}

bool is_expired(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return true;
  const time_t now = ::time(nullptr);
  // A clock that was set back does not make leases eternal.
  return info.st_mtime + limits::image_lease_s < now || info.st_mtime > now + limits::image_lease_s;
}

}  // namespace

Lease::Lease(Lease&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), record_(std::move(other.record_)) {}

Lease::~Lease() {
  if (store_ != nullptr) store_->end(record_, false);
}

void Lease::leave() {
  if (store_ != nullptr) std::exchange(store_, nullptr)->end(record_, true);
}

Result<> Lease::keep(const std::string& digest) { return store_->keep(*record_, digest); }

Result<> Store::load_leases() {
  std::error_code error;
  for (fs::directory_iterator at(root_ + "/leases", error), end; !error && at != end;
       at.increment(error)) {
    std::shared_ptr<LeaseRecord> lease = read_lease(at->path());
    if (lease->name.empty() || is_expired(lease->path))
      ::unlink(lease->path.c_str());
    else
      named_.emplace(lease->name, std::move(lease));
  }
  if (error) return base::fail_errno(error.value(), fmt::format("read '{}/leases'", root_));
  return {};
}

Lease Store::lease() {
  auto record = std::make_shared<LeaseRecord>();
  record->holders = 1;
  const std::lock_guard lock(mutex_);
  unnamed_.insert(record);
  return {this, std::move(record)};
}

Result<Lease> Store::lease(const std::string& name) {
  if (name.empty() || name.size() > limits::image_lease_name_bytes_max ||
      name.find('\n') != std::string::npos)
    return fail(ErrorCode::InvalidArgument, "'{}' cannot be a lease's name",
                base::escape_controls(name));
  const std::lock_guard lock(mutex_);
  drop_expired_leases();
  const auto known = named_.find(name);
  if (known == named_.end() && named_.size() >= limits::image_leases_max)
    return fail(ErrorCode::Unsupported,
                "more than {} images are being brought in, or were and can be resumed; the latter "
                "end after {} hours",
                limits::image_leases_max, limits::image_lease_s / 3600);
  auto record = known == named_.end() ? std::make_shared<LeaseRecord>() : known->second;
  if (known == named_.end()) {
    record->name = name;
    record->path = fmt::format("{}/leases/{}", root_, digest_hex(digest_of(name)));
    TRY(base::write_file_atomically(record->path, name + "\n"));
    named_.emplace(name, record);
  }
  if (!record->file)
    record->file = TRY(base::open_file(record->path, O_WRONLY | O_APPEND | O_NOFOLLOW));
  ++record->holders;
  return Lease(this, std::move(record));
}

Result<> Store::keep(LeaseRecord& lease, const std::string& digest) {
  const std::lock_guard lock(mutex_);
  return keep_locked(lease, digest);
}

Result<> Store::keep_locked(LeaseRecord& lease, const std::string& digest) {
  if (!is_digest(digest))
    return fail(ErrorCode::InvalidArgument, "'{}' is no sha256 digest",
                base::escape_controls(digest));
  if (lease.digests.contains(digest)) return {};
  if (lease.digests.size() >= limits::image_lease_digests_max)
    return fail(ErrorCode::InvalidArgument, "more than {} blobs and layers come in at once",
                limits::image_lease_digests_max);
  // Not synced: a line that is lost costs a download, no content that is named.
  if (lease.file)
    TRY_DURING(base::write_all(lease.file.get(), digest + "\n"), "note what must be kept");
  lease.digests.insert(digest);
  return {};
}

void Store::drop_expired_leases() {
  std::erase_if(named_, [](const auto& named) {
    const LeaseRecord& lease = *named.second;
    if (lease.holders > 0 || !is_expired(lease.path)) return false;
    ::unlink(lease.path.c_str());
    return true;
  });
}

void Store::end(const std::shared_ptr<LeaseRecord>& lease, bool leave) {
  bool has_content = false;
  {
    const std::lock_guard lock(mutex_);
    if (--lease->holders > 0) return;
    lease->file.reset();
    if (leave && !lease->name.empty()) return;
    lease->holders = 1;  // until it is known what else leads to its content
    has_content = !lease->digests.empty();
  }
  begin_collecting();
  // Without it nothing may be deleted: the content stays for the next collect().
  const auto used = has_content ? users() : std::set<std::string>{};
  const std::lock_guard lock(mutex_);
  if (--lease->holders == 0) {  // nobody took it up again meanwhile
    unnamed_.erase(lease);
    if (!lease->name.empty()) {
      named_.erase(lease->name);
      ::unlink(lease->path.c_str());
    }
    if (used) discard_content(*lease, *used);
  }
  end_collecting();
}

// ---- holds -------------------------------------------------------------------------------------

std::shared_ptr<const void> Store::hold(const std::string& digest) {
  const std::lock_guard lock(mutex_);
  holds_.insert(digest);
  const std::weak_ptr<bool> alive = alive_;
  return {this, [digest, alive](Store* store) {
            if (const auto is_alive = alive.lock()) store->release_hold(digest);
          }};
}

void Store::release_hold(const std::string& digest) {
  const std::lock_guard lock(mutex_);
  if (const auto found = holds_.find(digest); found != holds_.end()) holds_.erase(found);
  if (collecting_ > 0) let_go_.insert(digest);
}

void Store::begin_collecting() {
  const std::lock_guard lock(mutex_);
  ++collecting_;
}

/// With mutex_ held.
void Store::end_collecting() {
  if (--collecting_ == 0) let_go_.clear();
}

Result<std::set<std::string>> Store::users() const {
  if (!users_) return std::set<std::string>{};
  return users_();
}

}  // namespace image
