#pragma once
/// The images' content on disk: an OCI image layout (blobs by digest, tags in index.json) with the
/// layers' EROFS disks beside it.
///
///   oci-layout, index.json, blobs/sha256/HEX    as the OCI Image Layout Specification says
///   layers/sha256/HEX.erofs                     by diff id
///   ingest/                                     unfinished files; emptied at every start
///   damaged/                                    what check_store() set aside
///   partial/HEX                                 blobs that can be continued (PartialBlob)
///   leases/HEX                                  leases with a name (image/lease.h)
///   lock                                        held by the one process that may write
///
/// A blob appears under its digest only when its bytes were verified and are on the disk, so a
/// loss of power leaves whole blobs or none. Disks of layers reach the disk in the background;
/// those that had not when the host went down are dropped, and made again when they are needed.
/// Thread-safe.

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "image/bytes.h"
#include "image/digest.h"
#include "image/lease.h"
#include "image/side_hash.h"

namespace image {

/// What names content: a descriptor of the OCI Image Specification.
struct Descriptor {
  std::string media_type;
  std::string digest;
  uint64_t size = 0;
  bool operator==(const Descriptor&) const = default;
};

/// A file that is being written: gone unless it was committed.
class Ingest {
 public:
  ~Ingest();
  Ingest(Ingest&&) noexcept = default;
  Ingest& operator=(Ingest&&) = delete;
  int fd() const { return fd_.get(); }

 private:
  friend class Store;
  friend class PartialBlob;
  Ingest(std::string path, base::UniqueFd fd, std::shared_ptr<LeaseRecord> lease)
      : path_(std::move(path)), fd_(std::move(fd)), lease_(std::move(lease)) {}
  std::string path_;
  base::UniqueFd fd_;
  std::shared_ptr<LeaseRecord> lease_;
};

/// Content on its way into the store.
class PieceWriter {
 public:
  /// In ascending order; what lies between two pieces is zeros.
  base::Result<> write_at(uint64_t offset, std::string_view bytes);

 private:
  friend class Store;
  explicit PieceWriter(Ingest file) : file_(std::move(file)) {}
  base::Result<> append(std::string_view bytes);
  Ingest file_;
  Sha256 hash_;
  uint64_t size_ = 0;
};

/// A blob that comes in pieces and may be continued after a broken connection or a restart: its
/// file has the digest's name and stays as long as a lease keeps the digest. One writer at a time.
class PartialBlob {
 public:
  PartialBlob(PartialBlob&& other) noexcept;
  PartialBlob& operator=(PartialBlob&&) = delete;
  ~PartialBlob();
  /// Bytes that are there: where to go on.
  uint64_t size() const { return size_; }
  /// Takes a piece from `source` and gives it back, valid until the next call; empty at the end.
  /// InvalidArgument beyond the size that was announced.
  base::Result<std::string_view> take(const ByteSource& source);
  /// Forgets what is there, for a sender that cannot go on in the middle.
  base::Result<> restart();

 private:
  friend class Store;
  PartialBlob(Store* store, Ingest file, Descriptor expected)
      : store_(store), file_(std::move(file)), expected_(std::move(expected)) {}
  base::Result<std::string_view> next_piece(const ByteSource& source);

  Store* store_;
  Ingest file_;  ///< Its path is taken away before it could be unlinked.
  Descriptor expected_;
  std::array<std::vector<char>, 2> buffers_;  ///< One is filled while the other is hashed.
  size_t turn_ = 0;
  std::unique_ptr<SideHash> hash_ = std::make_unique<SideHash>();
  uint64_t size_ = 0;
};

/// What a collection deleted.
struct Collected {
  uint64_t bytes = 0;                  ///< Of the disk.
  std::vector<std::string> manifests;  ///< Digests of images and indexes among it.
};

/// Blocks of the disk.
struct Space {
  uint64_t bytes = 0;
  uint64_t reclaimable_bytes = 0;  ///< Without all names that no container uses.
};

class Store {
 public:
  ~Store();
  /// Busy if another process holds the store.
  static base::Result<std::unique_ptr<Store>> open(const std::string& root);

  // ---- leases and garbage ----

  /// A lease that ends with this process; what it brought in goes at the next collect().
  Lease lease();
  /// One that a later process, or another thread now, can take up again by its name, such as
  /// `pull docker.io/library/alpine:latest`. Unsupported when there are too many.
  base::Result<Lease> lease(const std::string& name);
  /// Keeps `digest` and all it leads to in this process, until the value and its copies are gone.
  std::shared_ptr<const void> hold(const std::string& digest);
  /// Tells the digests that containers use. Called without a lock, before anything is deleted; if
  /// it fails nothing is. Set it once, before others use the store.
  using Users = std::function<base::Result<std::set<std::string>>()>;
  void set_users(Users users) { users_ = std::move(users); }
  base::Result<std::set<std::string>> users() const;
  /// Deletes what no name, user, lease or hold leads to.
  base::Result<Collected> collect();
  base::Result<Space> space();

  // ---- content ----

  base::Result<PieceWriter> begin_put(const Lease& lease);
  /// Stores it under its digest. InvalidArgument if that is not the `expected` one.
  base::Result<Descriptor> finish_put(PieceWriter content,
                                      const std::optional<std::string>& expected);
  base::Result<Descriptor> put_text(const Lease& lease, std::string_view text,
                                    std::string media_type);
  /// Takes up what is there of it, and shows it to `seen` in order. Busy while another writes it.
  base::Result<PartialBlob> begin_partial(
      Lease& lease, const Descriptor& expected,
      const std::function<base::Result<>(std::string_view)>& seen = {});
  /// InvalidArgument if bytes are missing, or if it is not what was announced; then it is dropped.
  base::Result<> finish_partial(PartialBlob content);
  /// Drops what is there of a blob that nobody writes now.
  void drop_partial(const std::string& digest);
  bool has(const std::string& digest) const;
  /// Bytes of a blob; NotFound if it is not here.
  base::Result<uint64_t> size_of(const std::string& digest) const;
  /// Digests of blobs that begin with `prefix`, which is `sha256:` and hexadecimal digits.
  base::Result<std::vector<std::string>> blobs(const std::string& prefix) const;
  /// Takes a damaged blob out of the way, without destroying it; where it is now.
  base::Result<std::string> set_aside(const std::string& digest);
  /// Deletes what was set aside of digests that are whole again, as `is_whole` says.
  base::Result<> drop_damaged(const std::function<bool(const std::string& digest)>& is_whole);
  /// Opens a blob; NotFound if it is not here.
  base::Result<base::UniqueFd> open_blob(const std::string& digest) const;
  /// A whole JSON blob of at most `bytes_max` bytes, verified against its digest.
  base::Result<std::string> read(const std::string& digest, uint64_t bytes_max) const;

  /// One thread at a time makes a layer: hold this while looking for its disk and making it.
  std::shared_ptr<std::mutex> layer_turn(const std::string& diff_id);
  base::Result<Ingest> begin_layer(const Lease& lease) const;
  /// Makes it the disk of `diff_id`, for good.
  base::Result<> commit_layer(Ingest layer, const std::string& diff_id);
  /// Puts another disk in the place of one that is damaged.
  base::Result<> replace_layer(Ingest layer, const std::string& diff_id);
  std::string layer_path(const std::string& diff_id) const;

  // ---- names ----

  /// Tags all of them in one step; an existing name moves. NotFound if the content is not here.
  base::Result<> tag(const std::vector<std::pair<std::string, Descriptor>>& names);
  base::Result<> untag(const std::vector<std::string>& references);
  std::map<std::string, Descriptor> tags() const;

 private:
  friend class Lease;
  friend class PartialBlob;
  Store(std::string root, base::UniqueFd lock) : root_(std::move(root)), lock_(std::move(lock)) {}
  base::Result<> drop_torn_layers();
  void settle_later(std::string path);
  void settle_layers();
  base::Result<> prepare();
  base::Result<> load_index();
  base::Result<> load_leases();
  base::Result<> drop_partials();
  base::Result<> save_index(const std::map<std::string, Descriptor>& tags) const;
  base::Result<Ingest> begin(const Lease& lease) const;
  base::Result<> commit(Ingest file, const std::string& digest, const std::string& path);
  base::Result<> keep(LeaseRecord& lease, const std::string& digest);
  base::Result<> keep_locked(LeaseRecord& lease, const std::string& digest);
  void end(const std::shared_ptr<LeaseRecord>& lease, bool leave);
  void discard_content(const LeaseRecord& lease, const std::set<std::string>& used);
  void drop_expired_leases();
  void release_hold(const std::string& digest);
  void begin_collecting();
  void end_collecting();
  std::set<std::string> reachable(const std::set<std::string>& used) const;
  void add_leases(std::set<std::string>& roots) const;
  base::Result<Collected> sweep(const std::set<std::string>& keep);
  base::Result<std::vector<std::filesystem::path>> content_files() const;
  std::string blob_path(const std::string& digest) const;
  std::string partial_path(const std::string& digest) const;

  const std::string root_;
  const base::UniqueFd lock_;
  std::mutex settling_mutex_;
  std::condition_variable settling_changed_;
  std::deque<std::string> unsettled_;  ///< Guarded by settling_mutex_.
  bool closing_ = false;               ///< Guarded by settling_mutex_.
  std::thread settling_;
  Users users_;
  mutable std::mutex mutex_;
  // All below are guarded by mutex_.
  std::map<std::string, Descriptor> tags_;                     ///< By full reference.
  std::map<std::string, std::shared_ptr<LeaseRecord>> named_;  ///< Also those nobody holds.
  std::set<std::shared_ptr<LeaseRecord>> unnamed_;
  std::multiset<std::string> holds_;
  std::multiset<std::string> let_go_;  ///< Holds that ended while somebody asks for users.
  int collecting_ = 0;                 ///< How many ask.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::set<std::string> partials_open_;
  std::map<std::string, std::weak_ptr<std::mutex>> layer_turns_;
};

}  // namespace image
