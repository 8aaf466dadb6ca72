#include "image/store.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/manifest.h"

namespace image {
namespace {

namespace fs = std::filesystem;
using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

constexpr uint64_t index_bytes_max = 64u << 20;
constexpr uint64_t zero_bytes = 64u << 10;
/// How containerd and Docker name an image in an index.
constexpr const char* name_annotation = "io.containerd.image.name";
constexpr const char* tag_annotation = "org.opencontainers.image.ref.name";
constexpr std::string_view layer_suffix = ".erofs";
constexpr off_t settled_at_once = 8 << 20;  ///< Bytes of a layer that others may wait for.
constexpr mode_t settled_mode = 0444;
constexpr mode_t unsettled_mode = 0400;  ///< Of a layer that is not on the disk yet.

Result<base::UniqueFd> take_lock(const std::string& path) {
  base::UniqueFd file = TRY(base::open_file(path, O_RDWR | O_CREAT));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
  if (errno == EWOULDBLOCK)
    return fail(ErrorCode::Busy, "the image store '{}' is in use by another process", path);
  return base::fail_errno(errno, fmt::format("lock '{}'", path));
}

json named(const std::string& reference, const Descriptor& descriptor) {
  json entry = to_json(descriptor);
  entry["annotations"] = {{name_annotation, reference}, {tag_annotation, reference}};
  return entry;
}

/// To the disk, piece by piece: one fsync of a large file would let every other one in the file
/// system, such as that of an image's name, wait for all of it.
bool write_out(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return false;
  for (off_t at = 0; at < info.st_size; at += settled_at_once)
    if (::sync_file_range(fd, at, settled_at_once,
                          SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) != 0 &&
        errno != ENOSYS && errno != EINVAL)
      return false;  // fsync would not tell it again
  return ::fsync(fd) == 0;
}

}  // namespace

Ingest::~Ingest() {
  if (fd_ && !path_.empty()) ::unlink(path_.c_str());
}

Result<std::unique_ptr<Store>> Store::open(const std::string& root) {
  TRY(base::make_directories(root));
  base::UniqueFd lock = TRY(take_lock(root + "/lock"));
  std::unique_ptr<Store> store(new Store(root, std::move(lock)));
  TRY(store->prepare());
  TRY_DURING(store->load_index(), "read the image store's index");
  TRY_DURING(store->load_leases(), "read the image store's leases");
  TRY_DURING(store->drop_partials(), "drop unfinished blobs");
  return store;
}

Result<> Store::prepare() {
  TRY(base::remove_tree(root_ + "/ingest"));
  for (const char* folder : {"/ingest", "/partial", "/leases", "/blobs/sha256", "/layers/sha256"})
    TRY(base::make_directories(root_ + folder));
  TRY(drop_torn_layers());
  if (base::path_exists(root_ + "/oci-layout")) return {};
  return base::write_file_atomically(root_ + "/oci-layout",
                                     base::dump_json({{"imageLayoutVersion", "1.0.0"}}));
}

Result<> Store::load_index() {
  const std::string path = root_ + "/index.json";
  if (!base::path_exists(path)) return save_index({});
  const json index = TRY(base::parse_json(TRY(base::read_file(path, index_bytes_max))));
  const auto manifests = index.find("manifests");
  if (manifests == index.end() || !manifests->is_array())
    return fail(ErrorCode::Io, "'{}' has no list of manifests; move it away and load again", path);
  for (const json& one : *manifests) {
    if (!one.is_object()) continue;
    const json annotations = one.value("annotations", json::object());
    const std::string name = base::json_string_or(annotations, name_annotation, "");
    Descriptor descriptor{.media_type = base::json_string_or(one, "mediaType", ""),
                          .digest = base::json_string_or(one, "digest", ""),
                          .size = static_cast<uint64_t>(base::json_int_or(one, "size", 0))};
    if (!name.empty() && is_digest(descriptor.digest)) tags_.emplace(name, std::move(descriptor));
  }
  return {};
}

Result<> Store::save_index(const std::map<std::string, Descriptor>& tags) const {
  json manifests = json::array();
  for (const auto& [reference, descriptor] : tags)
    manifests.push_back(named(reference, descriptor));
  const json index = {{"schemaVersion", 2},
                      {"mediaType", "application/vnd.oci.image.index.v1+json"},
                      {"manifests", manifests}};
  return base::write_file_atomically(root_ + "/index.json", base::dump_json(index));
}

std::string Store::blob_path(const std::string& digest) const {
  return fmt::format("{}/blobs/sha256/{}", root_, digest_hex(digest));
}

std::string Store::partial_path(const std::string& digest) const {
  return fmt::format("{}/partial/{}", root_, digest_hex(digest));
}

std::string Store::layer_path(const std::string& diff_id) const {
  return fmt::format("{}/layers/sha256/{}{}", root_, digest_hex(diff_id), layer_suffix);
}

// ---- writing -----------------------------------------------------------------------------------

Result<Ingest> Store::begin(const Lease& lease) const {
  std::string path = fmt::format("{}/ingest/{}", root_, base::random_hex(16));
  base::UniqueFd fd = TRY(base::open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW));
  return Ingest(std::move(path), std::move(fd), lease.record_);
}

Result<Ingest> Store::begin_layer(const Lease& lease) const { return begin(lease); }

/// A blob is on the disk before it has its name. A layer's disk can be made again, so nobody waits
/// for it: its mode says until then that a loss of power may have torn it.
Result<> Store::commit(Ingest file, const std::string& digest, const std::string& path) {
  const bool is_layer = path.ends_with(layer_suffix);
  if (::fchmod(file.fd(), is_layer ? unsettled_mode : settled_mode) != 0 ||
      (!is_layer && ::fsync(file.fd()) != 0))
    return base::fail_errno(errno, fmt::format("finish '{}'", path));
  {
    const std::lock_guard lock(mutex_);
    TRY(keep_locked(*file.lease_, digest));
    if (base::path_exists(path)) return {};  // another was faster
    if (::rename(file.path_.c_str(), path.c_str()) != 0)
      return base::fail_errno(errno, fmt::format("rename to '{}'", path));
    file.fd_.reset();
  }
  if (!is_layer) return base::sync_directory(fs::path(path).parent_path());
  settle_later(path);
  return {};
}

Store::~Store() {
  {
    const std::lock_guard lock(settling_mutex_);
    closing_ = true;
  }
  settling_changed_.notify_all();
  if (settling_.joinable()) settling_.join();
}

void Store::settle_later(std::string path) {
  const std::lock_guard lock(settling_mutex_);
  unsettled_.push_back(std::move(path));
  if (!settling_.joinable()) settling_ = std::thread([this] { settle_layers(); });
  settling_changed_.notify_all();
}

/// The thread that brings layers to the disk. What is left when the store closes is taken up by the
/// next one of the same boot.
void Store::settle_layers() {
  std::unique_lock lock(settling_mutex_);
  for (;;) {
    settling_changed_.wait(lock, [this] { return closing_ || !unsettled_.empty(); });
    if (closing_) return;
    const std::string path = std::move(unsettled_.front());
    unsettled_.pop_front();
    lock.unlock();
    // It may have been deleted meanwhile. One that cannot be written must not be believed.
    if (const auto layer = base::open_file(path, O_RDONLY | O_NOFOLLOW)) {
      if (!write_out(layer->get()))
        ::unlink(path.c_str());
      else
        (void)::fchmod(layer->get(), settled_mode);
    }
    lock.lock();
  }
}

/// After a boot of the host, layers that were not settled before may be torn: they go.
Result<> Store::drop_torn_layers() {
  const std::string path = root_ + "/boot";
  constexpr uint64_t boot_id_bytes_max = 100;
  const std::string now =
      TRY(base::read_file("/proc/sys/kernel/random/boot_id", boot_id_bytes_max));
  const std::string before = base::read_file(path, boot_id_bytes_max).value_or("");
  std::error_code error;
  for (fs::directory_iterator at(root_ + "/layers/sha256", error), end; !error && at != end;
       at.increment(error)) {
    struct stat info {};
    if (::lstat(at->path().c_str(), &info) != 0 || (info.st_mode & 07777u) != unsettled_mode)
      continue;
    if (before == now)
      settle_later(at->path().string());
    else if (::unlink(at->path().c_str()) != 0)
      return base::fail_errno(errno, fmt::format("delete '{}'", at->path().string()));
  }
  if (error) return base::fail_errno(error.value(), "read the layers");
  return before == now ? Result<>() : base::write_file_atomically(path, now);
}

Result<> Store::commit_layer(Ingest layer, const std::string& diff_id) {
  return commit(std::move(layer), diff_id, layer_path(diff_id));
}

Result<> Store::replace_layer(Ingest layer, const std::string& diff_id) {
  {
    const std::lock_guard lock(mutex_);
    if (::unlink(layer_path(diff_id).c_str()) != 0 && errno != ENOENT)
      return base::fail_errno(errno, fmt::format("delete '{}'", layer_path(diff_id)));
  }
  return commit_layer(std::move(layer), diff_id);
}

Result<std::string> Store::set_aside(const std::string& digest) {
  TRY(base::make_directories(root_ + "/damaged"));
  std::string where =
      fmt::format("{}/damaged/{}-{}", root_, digest_hex(digest), base::random_hex(4));
  const std::lock_guard lock(mutex_);
  if (::rename(blob_path(digest).c_str(), where.c_str()) != 0)
    return base::fail_errno(errno, fmt::format("set '{}' aside", blob_path(digest)));
  return where;
}

Result<> Store::drop_damaged(const std::function<bool(const std::string& digest)>& is_whole) {
  std::error_code error;
  if (!base::path_exists(root_ + "/damaged")) return {};
  for (fs::directory_iterator at(root_ + "/damaged", error), end; !error && at != end;
       at.increment(error)) {
    const std::string name = at->path().filename();
    const std::string digest = "sha256:" + name.substr(0, name.find('-'));
    if (is_digest(digest) && is_whole(digest) && ::unlink(at->path().c_str()) != 0)
      return base::fail_errno(errno, fmt::format("delete '{}'", at->path().string()));
  }
  if (error) return base::fail_errno(error.value(), fmt::format("read '{}/damaged'", root_));
  return {};
}

std::shared_ptr<std::mutex> Store::layer_turn(const std::string& diff_id) {
  const std::lock_guard lock(mutex_);
  std::erase_if(layer_turns_, [](const auto& turn) { return turn.second.expired(); });
  std::weak_ptr<std::mutex>& known = layer_turns_[diff_id];
  std::shared_ptr<std::mutex> turn = known.lock();
  if (!turn) known = turn = std::make_shared<std::mutex>();
  return turn;
}

Result<> PieceWriter::append(std::string_view bytes) {
  hash_.update(bytes);
  size_ += bytes.size();
  TRY_DURING(base::write_all(file_.fd(), bytes), "store image content");
  return {};
}

Result<> PieceWriter::write_at(uint64_t offset, std::string_view bytes) {
  if (offset < size_) return fail(ErrorCode::InvalidArgument, "content that goes backwards");
  static const std::string zeros(zero_bytes, '\0');
  while (size_ < offset)
    TRY(append(std::string_view(zeros).substr(0, std::min(offset - size_, zero_bytes))));
  return append(bytes);
}

Result<PieceWriter> Store::begin_put(const Lease& lease) { return PieceWriter(TRY(begin(lease))); }

Result<Descriptor> Store::finish_put(PieceWriter content,
                                     const std::optional<std::string>& expected) {
  Descriptor stored{.media_type = {}, .digest = content.hash_.finish(), .size = content.size_};
  if (expected && stored.digest != *expected)
    return fail(ErrorCode::InvalidArgument, "content that should be {} is {}: it was damaged",
                *expected, stored.digest);
  TRY(keep(*content.file_.lease_, stored.digest));
  if (!has(stored.digest))
    TRY(commit(std::move(content.file_), stored.digest, blob_path(stored.digest)));
  return stored;
}

Result<Descriptor> Store::put_text(const Lease& lease, std::string_view text,
                                   std::string media_type) {
  PieceWriter writer = TRY(begin_put(lease));
  TRY(writer.write_at(0, text));
  Descriptor stored = TRY(finish_put(std::move(writer), std::nullopt));
  stored.media_type = std::move(media_type);
  return stored;
}

// ---- reading -----------------------------------------------------------------------------------

bool Store::has(const std::string& digest) const {
  return is_digest(digest) && base::path_exists(blob_path(digest));
}

Result<uint64_t> Store::size_of(const std::string& digest) const {
  struct stat info {};
  if (!is_digest(digest) || ::stat(blob_path(digest).c_str(), &info) != 0)
    return fail(ErrorCode::NotFound, "the image store does not hold {}",
                base::escape_controls(digest));
  return static_cast<uint64_t>(info.st_size);
}

Result<std::vector<std::string>> Store::blobs(const std::string& prefix) const {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator at(root_ + "/blobs/sha256", error), end; !error && at != end;
       at.increment(error))
    if (std::string digest = "sha256:" + at->path().filename().string();
        digest.starts_with(prefix) && is_digest(digest))
      found.push_back(std::move(digest));
  if (error) return base::fail_errno(error.value(), "read the image store");
  std::sort(found.begin(), found.end());
  return found;
}

Result<base::UniqueFd> Store::open_blob(const std::string& digest) const {
  if (!has(digest))
    return fail(ErrorCode::NotFound, "the image store does not hold {}",
                base::escape_controls(digest));
  return base::open_file(blob_path(digest), O_RDONLY | O_NOFOLLOW);
}

Result<std::string> Store::read(const std::string& digest, uint64_t bytes_max) const {
  if (!has(digest))
    return fail(ErrorCode::NotFound, "the image store does not hold {}",
                base::escape_controls(digest));
  struct stat info {};
  if (::stat(blob_path(digest).c_str(), &info) == 0 &&
      static_cast<uint64_t>(info.st_size) > bytes_max)
    return fail(ErrorCode::InvalidArgument, "{} is larger than {} bytes", digest, bytes_max);
  std::string text = TRY(base::read_file(blob_path(digest), bytes_max));
  if (digest_of(text) != digest)
    return fail(ErrorCode::Io, "'{}' is damaged on this disk; remove the image and load it again",
                blob_path(digest));
  return text;
}

// ---- names -------------------------------------------------------------------------------------

Result<> Store::tag(const std::vector<std::pair<std::string, Descriptor>>& names) {
  const std::lock_guard lock(mutex_);
  std::map<std::string, Descriptor> next = tags_;
  for (const auto& [reference, descriptor] : names) {
    if (!has(descriptor.digest))
      return fail(ErrorCode::NotFound, "{} is not in the image store any more", descriptor.digest);
    next[reference] = descriptor;
  }
  TRY(save_index(next));
  tags_.swap(next);
  return {};
}

Result<> Store::untag(const std::vector<std::string>& references) {
  const std::lock_guard lock(mutex_);
  std::map<std::string, Descriptor> next = tags_;
  for (const std::string& reference : references) next.erase(reference);
  TRY(save_index(next));
  tags_.swap(next);
  return {};
}

std::map<std::string, Descriptor> Store::tags() const {
  const std::lock_guard lock(mutex_);
  return tags_;
}

}  // namespace image
