/// The target side of COPY, ADD and WORKDIR.

#include "builder/copy.h"

#include <algorithm>
#include <map>

#include "base/text.h"
#include "builder/accounts.h"
#include "builder/copy_select.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using Kind = SelectedSource::Kind;

constexpr uint32_t folder_mode = 0755;

std::string shown(std::string_view path) { return "'/" + base::escape_controls(path) + "'"; }

/// The target as a path of a Tree, and whether it must be a folder.
struct Target {
  std::string path;
  bool folder = false;
};

Target target_of(std::string_view target, std::string_view working_dir) {
  const std::string whole =
      target.starts_with('/') ? std::string(target) : fmt::format("{}/{}", working_dir, target);
  Target result;
  std::vector<std::string> pieces;
  for (std::string& piece : base::split(whole, '/')) {
    result.folder = piece.empty() || piece == "." || piece == "..";
    if (piece.empty() || piece == ".") continue;
    if (piece != "..")
      pieces.push_back(std::move(piece));
    else if (!pieces.empty())
      pieces.pop_back();
  }
  result.path = base::join(pieces, "/");
  return result;
}

class Placer {
 public:
  explicit Placer(const Tree* destination) : destination_(destination) {}

  void set_owner(const Owner& owner) { owner_ = owner; }
  void set_chmod(const std::string& chmod) { chmod_ = chmod; }

  Result<std::string> resolve(const std::string& path) const {
    return destination_ == nullptr ? Result<std::string>(path)
                                   : resolve_links(*destination_, path, true);
  }
  Result<> make_folder(const std::string& path);
  Result<> put(const SelectedSource& source, size_t number, const Target& target, bool alone);
  Result<Layer> finish(std::shared_ptr<const void> keeps);

 private:
  struct Placed {
    LayerEntry entry;
    std::pair<size_t, uint64_t> hard_link;  ///< Source and id of a file with several names.
  };

  Result<std::optional<Node>> existing(const std::string& path) const;
  Result<> put_contents(const SelectedSource& source, size_t number, const std::string& target);
  Result<> put_node(const SelectedNode& selected, size_t number, const std::string& path,
                    bool is_archive);
  Result<> check_replacement(const Node& node, const std::string& path) const;
  void forget_below(const std::string& path);
  Result<> adapt(Node& node) const;

  const Tree* destination_;
  std::optional<Owner> owner_;
  std::string chmod_;
  std::map<std::string, Placed> placed_;  ///< By path, which the entry gets at the end.
};

/// What is at `path` by now: placed before, or in the destination and not hidden.
Result<std::optional<Node>> Placer::existing(const std::string& path) const {
  const auto found = placed_.find(path);
  if (found != placed_.end()) return std::optional(found->second.entry.node);
  for (std::string above = path; !above.empty();) {
    above = parent_path(above);
    const auto parent = placed_.find(above);
    if (parent != placed_.end() && parent->second.entry.node.type != NodeType::Directory)
      return std::optional<Node>();
  }
  if (destination_ == nullptr) return std::optional<Node>();
  Result<Node> node = destination_->node(path);
  if (node) return std::optional(std::move(*node));
  if (node.error().code() == ErrorCode::NotFound) return std::optional<Node>();
  return tl::unexpected(node.error());
}

/// `path` and the folders above it: those that exist keep what they are, but stand in the layer,
/// since a layer that leaves them out would give them another owner and mode.
Result<> Placer::make_folder(const std::string& path) {
  if (path.empty()) return {};
  TRY(make_folder(parent_path(path)));
  if (std::optional<Node> node = TRY(existing(path))) {
    if (node->type != NodeType::Directory)
      return base::fail(ErrorCode::InvalidArgument, "{} is no folder", shown(path));
    placed_.try_emplace(path, Placed{.entry = {.path = {}, .node = std::move(*node)}});
    return {};
  }
  const Owner owner = owner_.value_or(Owner{});
  Node node{
      .type = NodeType::Directory, .mode = folder_mode, .user = owner.user, .group = owner.group};
  placed_[path] = {.entry = {.path = {}, .node = std::move(node), .made = true}};
  return {};
}

Result<> Placer::adapt(Node& node) const {
  if (owner_) {
    node.user = owner_->user;
    node.group = owner_->group;
  }
  if (!chmod_.empty() && node.type != NodeType::Symlink)
    node.mode = TRY(changed_mode(chmod_, node.mode, node.type == NodeType::Directory));
  return {};
}

Result<> Placer::check_replacement(const Node& node, const std::string& path) const {
  const std::optional<Node> before = TRY(existing(path));
  if (!before) return {};
  const bool is_folder = node.type == NodeType::Directory;
  const bool was_folder = before->type == NodeType::Directory;
  if (is_folder == was_folder) return {};
  return is_folder
             ? base::fail(ErrorCode::InvalidArgument,
                          "a folder would replace {}, which is {}; remove that first, or "
                          "copy to where it leads",
                          shown(path),
                          before->type == NodeType::Symlink ? "a symbolic link" : "no folder")
             : base::fail(ErrorCode::InvalidArgument,
                          "a file would replace the folder {}; remove that first", shown(path));
}

void Placer::forget_below(const std::string& path) {
  const std::string prefix = path + "/";
  auto below = placed_.lower_bound(prefix);
  while (below != placed_.end() && below->first.starts_with(prefix)) below = placed_.erase(below);
}

Result<> Placer::put_node(const SelectedNode& selected, size_t number, const std::string& path,
                          bool is_archive) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name.starts_with(".wh."))
    return base::fail(ErrorCode::InvalidArgument,
                      "{} has a name that image layers read as a deletion; rename it", shown(path));
  Node node = selected.node;
  if (is_archive) {
    if (node.type != NodeType::Directory) forget_below(path);
  } else {
    TRY(check_replacement(node, path));
    TRY(adapt(node));
  }
  Placed placed{.entry = {.path = {},
                          .node = std::move(node),
                          .source = &selected.source,
                          .made = selected.made},
                .hard_link = {number, selected.node.hard_link_id}};
  placed_[path] = std::move(placed);
  return {};
}

Result<> Placer::put_contents(const SelectedSource& source, size_t number,
                              const std::string& target) {
  TRY(make_folder(target));
  for (const SelectedNode& node : source.nodes)
    if (!node.path.empty())
      TRY(put_node(node, number, join_path(target, node.path), source.kind == Kind::Archive));
  return {};
}

Result<> Placer::put(const SelectedSource& source, size_t number, const Target& target,
                     bool alone) {
  std::string path = TRY(resolve(target.path));
  TRY(make_folder(target.folder ? path : parent_path(path)));
  if (source.kind != Kind::File) return put_contents(source, number, path);
  const std::optional<Node> there = TRY(existing(path));
  const bool into = path.empty() || (there && there->type == NodeType::Directory);
  if (into) {
    TRY(make_folder(path));
    path = join_path(path, source.name);
  }
  if (!into && !alone)
    return base::fail(ErrorCode::InvalidArgument,
                      "several files would become {}; a target that is a folder ends with '/'",
                      shown(path));
  return put_node(source.nodes.front(), number, path, false);
}

/// The first name of a file has its content, the others are links to it.
Result<Layer> Placer::finish(std::shared_ptr<const void> keeps) {
  Layer layer;
  std::map<std::pair<size_t, uint64_t>, std::string> first_names;
  // One by one, so that no moment holds everything twice.
  while (!placed_.empty()) {
    auto one = placed_.extract(placed_.begin());
    Placed& placed = one.mapped();
    placed.entry.path = std::move(one.key());
    if (placed.hard_link.second != 0) {
      const auto [first, is_first] = first_names.emplace(placed.hard_link, placed.entry.path);
      if (!is_first) placed.entry.hard_link = first->second;
    }
    layer.entries.push_back(std::move(placed.entry));
  }
  if (keeps) layer.keeps.push_back(std::move(keeps));
  return layer;
}

/// One clause of a symbolic mode, as `u+rwX` or `go=u`; false if it is none.
class SymbolicMode {
 public:
  SymbolicMode(std::string_view text, bool is_directory)
      : text_(text), is_directory_(is_directory) {}

  std::optional<uint32_t> apply(uint32_t mode) {
    do {
      if (!clause(mode)) return std::nullopt;
    } while (take(','));
    if (at_ != text_.size()) return std::nullopt;
    return mode;
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  bool clause(uint32_t& mode) {
    uint32_t who = 0;
    for (bool more = true; more;) {
      if (take('u'))
        who |= 04700;
      else if (take('g'))
        who |= 02070;
      else if (take('o'))
        who |= 01007;
      else if (take('a'))
        who |= 07777;
      else
        more = false;
    }
    if (who == 0) who = 07777;
    bool acted = false;
    for (char action = peek(); action == '+' || action == '-' || action == '='; action = peek()) {
      ++at_;
      const uint32_t bits = permissions(mode) & who;
      if (action == '=') mode = (mode & ~(who & (is_directory_ ? 01777u : 07777u))) | bits;
      if (action == '+') mode |= bits;
      if (action == '-') mode &= ~bits;
      acted = true;
    }
    return acted;
  }

  /// For everybody; who gets them is the caller's.
  uint32_t permissions(uint32_t mode) {
    const auto spread = [](uint32_t bits) { return bits * 0111; };
    if (take('u')) return spread((mode >> 6) & 7);
    if (take('g')) return spread((mode >> 3) & 7);
    if (take('o')) return spread(mode & 7);
    uint32_t bits = 0;
    for (;; ++at_) {
      switch (peek()) {
        case 'r': bits |= 0444; break;
        case 'w': bits |= 0222; break;
        case 'x': bits |= 0111; break;
        case 'X': bits |= is_directory_ || (mode & 0111) != 0 ? 0111 : 0; break;
        case 's': bits |= 06000; break;
        case 't': bits |= 01000; break;
        default: return bits;
      }
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  bool is_directory_;
};

}  // namespace

Result<uint32_t> changed_mode(std::string_view chmod, uint32_t mode, bool is_directory) {
  const bool is_octal =
      !chmod.empty() && chmod.size() <= 5 &&
      std::all_of(chmod.begin(), chmod.end(), [](char c) { return c >= '0' && c <= '7'; });
  if (is_octal) {
    uint32_t value = 0;
    for (const char c : chmod) value = value * 8 + static_cast<uint32_t>(c - '0');
    if (value <= 07777) return value;
  } else if (const auto changed = SymbolicMode(chmod, is_directory).apply(mode)) {
    return *changed;
  }
  return base::fail(ErrorCode::InvalidArgument,
                    "'{}' is no mode: it is octal up to 07777, as 755, or symbolic, as u=rwX,go=rX",
                    base::escape_controls(chmod));
}

Result<Layer> place_copy(const std::shared_ptr<const CopySelection>& selection,
                         const Tree* destination, const Tree* accounts) {
  const CopyRequest& request = selection->request;
  Placer placer(request.link ? nullptr : destination);
  if (!request.chown.empty()) {
    TRY(resolve_owner(request.chown, accounts)
            .map([&](const Owner& owner) { placer.set_owner(owner); })
            .map_error([](base::Error error) { return std::move(error).during("--chown"); }));
  }
  placer.set_chmod(request.chmod);
  const Target target = target_of(request.target, request.working_dir);
  const auto files =
      std::count_if(selection->sources.begin(), selection->sources.end(),
                    [](const SelectedSource& one) { return one.kind == Kind::File; });
  size_t number = 0;
  for (const SelectedSource& source : selection->sources)
    TRY(placer.put(source, number++, target, files <= 1));
  return placer.finish(selection);
}

Result<Layer> place_working_dir(std::string_view path, std::string_view owner,
                                const Tree* destination) {
  Placer placer(destination);
  const std::string resolved = TRY(placer.resolve(target_of(path, "/").path));
  if (destination != nullptr) {
    const Result<Node> there = destination->node(resolved);
    if (there && there->type == NodeType::Directory) return Layer();
    if (!there && there.error().code() != ErrorCode::NotFound) return tl::unexpected(there.error());
  }
  if (!owner.empty()) placer.set_owner(TRY(resolve_owner(owner, destination)));
  TRY(placer.make_folder(resolved));
  return placer.finish(nullptr);
}

}  // namespace builder
