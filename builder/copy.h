#pragma once
/// COPY, ADD and WORKDIR as values: which files they take, where these land, and the layer's bytes.
///
/// Three steps, so that a cached COPY never looks at the root it is copied into:
///   1. select_copy(): sources, globs and excludes against the source tree; copy_key() names what
///      was selected, for the cache.
///   2. place_copy(): the target against the destination root; the entries of the layer.
///   3. write_layer(): a tar of them, the same bytes for the same entries.
///
/// Nothing is written but the tar; files are read from their trees as it streams.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "builder/tree.h"

namespace builder {

/// A file that comes from no tree: a here document, or a download of ADD.
struct CopyFile {
  std::string name;
  std::string content;         ///< Of a here document.
  const Tree* tree = nullptr;  ///< Else: the file `path` of this tree (a download).
  std::string path;
  uint32_t mode = 0644;               ///< ADD of a URL: 0600.
  std::optional<int64_t> modified_s;  ///< `Last-Modified` of a URL; nothing: it is `made`.
};

struct CopyRequest {
  const Tree* source = nullptr;      ///< May be null if `sources` is empty. Ignore rules applied.
  std::vector<std::string> sources;  ///< Expanded; globs.
  std::vector<CopyFile> files;
  std::string target;       ///< Expanded, as written: a trailing slash counts.
  std::string working_dir;  ///< Absolute; of a relative target. Empty: `/`.
  std::string chown;
  std::string chmod;          ///< Octal or symbolic (`u=rwX,go=rX`); empty: modes stay.
  bool link = false;          ///< Destination is not looked at: folders on the way are made new.
  bool parents = false;       ///< Sources keep their folders, those after a `/./` if there is one.
  bool unpack = false;        ///< ADD: archives among `sources` (by content) are unpacked.
  bool unpack_files = false;  ///< The same for `files` (ADD --unpack of a URL).
  std::vector<std::string> exclude;
  std::string source_name = "build context";  ///< For messages: `stage 'base'`.
  std::string spool_folder = "/tmp";          ///< For archives that are unpacked.
};

struct CopySelection;

/// NotFound for a source that does not exist, with the nearest name. A source with wildcards may
/// match nothing. InvalidArgument for patterns and modes that mean nothing.
base::Result<std::shared_ptr<const CopySelection>> select_copy(const CopyRequest& request);

/// SHA-256 over names, types, modes, owners, sizes, contents and flags. No times.
base::Result<std::string> copy_key(const CopySelection& selection);

/// Where the content of a file is.
struct FileSource {
  const Tree* tree = nullptr;  ///< Null: it is `bytes`.
  std::string path;            ///< In `tree`.
  std::string bytes;
};

/// One member of a layer. There may be millions of them, so what selection and layer both know is
/// there once.
struct LayerEntry {
  std::string path;  ///< As builder::Tree has it.
  Node node;
  const FileSource* source = nullptr;  ///< Of a file. In what the layer keeps.
  std::string hard_link;               ///< Not empty: another entry's path that is the same file.
  bool made = false;                   ///< By the build itself, so that it has no time of its own.
};

struct Layer {
  std::deque<LayerEntry> entries;  ///< Sorted; folders before what is in them. May be empty.
  std::vector<std::shared_ptr<const void>> keeps;  ///< What `entries` point into.
};

/// `destination` is the root as it is so far; null: empty (`--link`, scratch). `chown` names are
/// looked up in `accounts` (the same root, also with --link), null: only numbers. InvalidArgument
/// where a file would replace a folder, a folder a file, or several files one.
base::Result<Layer> place_copy(const std::shared_ptr<const CopySelection>& selection,
                               const Tree* destination, const Tree* accounts);

/// The folders of a WORKDIR that do not exist yet, owned by `owner` (of USER) or root.
base::Result<Layer> place_working_dir(std::string_view path, std::string_view owner,
                                      const Tree* destination);

struct LayerWriteOptions {
  /// SOURCE_DATE_EPOCH: later modification times become this one.
  std::optional<int64_t> latest_s;
  /// Of what is `made`: the caller's clock; `latest_s` if that is earlier.
  int64_t made_s = 0;
};

using LayerSink = std::function<base::Result<>(std::string_view bytes)>;

/// An OCI layer: a tar with PAX records where needed, without compression.
base::Result<> write_layer(const Layer& layer, const LayerWriteOptions& options,
                           const LayerSink& sink);

/// The same for a whole tree or the part below `path`: a `Tree` mount of RUN, a `local` output.
base::Result<> write_tree(const Tree& tree, const std::string& path,
                          const LayerWriteOptions& options, const LayerSink& sink);

/// The mode that `--chmod` gives a node of `mode`. InvalidArgument says which forms there are.
base::Result<uint32_t> changed_mode(std::string_view chmod, uint32_t mode, bool is_directory);

}  // namespace builder
