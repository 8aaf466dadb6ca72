#pragma once
/// The images' content on disk: an OCI image layout (blobs by digest, tags in index.json) with the
/// layers' EROFS disks beside it.
///
///   oci-layout, index.json, blobs/sha256/HEX    as the OCI Image Layout Specification says
///   layers/sha256/HEX.erofs                     by diff id
///   ingest/                                     unfinished files; emptied at every start
///   lock                                        held by the one process that may write
///
/// A file appears under its digest only when its bytes were verified and are on the disk, so a
/// loss of power leaves whole files or none. Thread-safe.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "image/digest.h"

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
  Ingest(std::string path, base::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  base::UniqueFd fd_;
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

class Store {
 public:
  /// Busy if another process holds the store.
  static base::Result<std::unique_ptr<Store>> open(const std::string& root);

  base::Result<PieceWriter> begin_put();
  /// Stores it under its digest. InvalidArgument if that is not the `expected` one.
  base::Result<Descriptor> finish_put(PieceWriter content,
                                      const std::optional<std::string>& expected);
  base::Result<Descriptor> put_text(std::string_view text, std::string media_type);
  bool has(const std::string& digest) const;
  /// Opens a blob; NotFound if it is not here.
  base::Result<base::UniqueFd> open_blob(const std::string& digest) const;
  /// A whole JSON blob of at most `bytes_max` bytes, verified against its digest.
  base::Result<std::string> read(const std::string& digest, uint64_t bytes_max) const;

  base::Result<Ingest> begin_layer() const;
  /// Makes it the disk of `diff_id`, for good.
  base::Result<> commit_layer(Ingest layer, const std::string& diff_id) const;
  std::string layer_path(const std::string& diff_id) const;

  /// Tags all of them in one step; an existing name moves.
  base::Result<> tag(const std::vector<std::pair<std::string, Descriptor>>& names);
  base::Result<> untag(const std::string& reference);
  std::map<std::string, Descriptor> tags() const;

  /// From here on, what comes into the store is new.
  void forget_new();
  /// Deletes what is new and not in `keep`. What cannot be deleted stays for the next sweep().
  void discard_new(const std::set<std::string>& keep);
  /// Deletes blobs and layers that are not in `keep` (digests of either); the bytes freed.
  base::Result<uint64_t> sweep(const std::set<std::string>& keep);

 private:
  Store(std::string root, base::UniqueFd lock) : root_(std::move(root)), lock_(std::move(lock)) {}
  base::Result<> prepare();
  base::Result<> load_index();
  base::Result<> save_index(const std::map<std::string, Descriptor>& tags) const;
  base::Result<Ingest> begin() const;
  base::Result<> commit(Ingest file, const std::string& path) const;
  std::string blob_path(const std::string& digest) const;

  const std::string root_;
  const base::UniqueFd lock_;
  mutable std::mutex mutex_;
  std::map<std::string, Descriptor> tags_;      ///< By full reference; guarded by mutex_.
  mutable std::vector<std::string> new_files_;  ///< Paths; guarded by mutex_.
};

}  // namespace image
