/// The source side of COPY and ADD.

#include "builder/copy_select.h"

#include <algorithm>
#include <map>

#include "base/sha256.h"
#include "base/text.h"
#include "builder/tar_tree.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using Kind = SelectedSource::Kind;

std::string shown(std::string_view text) { return base::escape_controls(text); }

/// Pieces without empty ones and `.`; `..` never leads above the root, as with Docker.
std::vector<std::string> pieces_of(std::string_view path) {
  std::vector<std::string> pieces;
  for (std::string& piece : base::split(path, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece != "..")
      pieces.push_back(std::move(piece));
    else if (!pieces.empty())
      pieces.pop_back();
  }
  return pieces;
}

class Selector {
 public:
  Selector(CopySelection& selection, Ignore exclude)
      : selection_(selection), request_(selection.request), exclude_(std::move(exclude)) {}

  Result<> run() {
    for (const std::string& source : request_.sources) TRY(add(source));
    for (const CopyFile& file : request_.files) TRY(add_file(file));
    return {};
  }

 private:
  Result<> add(const std::string& source);
  Result<> add_match(const std::string& path);
  Result<> add_with_parents(const std::string& source);
  Result<> add_file(const CopyFile& file);
  Result<bool> unpack(const Tree& tree, const std::string& path);
  Result<> add_archive(std::unique_ptr<Tree> archive, const std::string& name);
  Result<std::vector<std::string>> matches(const std::vector<std::string>& pieces);
  Result<> expand_glob(const std::string& folder, const std::vector<std::string>& pieces, size_t at,
                       std::vector<std::string>& found);
  Result<> walk(const Tree& tree, const std::string& folder, const std::string& relative,
                const Ignore::State& state, SelectedSource& source);
  Result<> walk_pattern(const std::string& root, const std::string& relative,
                        const PathPattern& pattern, SelectedSource& source);
  Result<> add_node(SelectedNode node, SelectedSource& source);
  tl::unexpected<base::Error> missing(const std::string& source, const base::Error& error) const;

  CopySelection& selection_;
  const CopyRequest& request_;
  Ignore exclude_;
  uint32_t count_ = 0;
};

/// Names the nearest that there is, in the deepest folder that exists.
tl::unexpected<base::Error> Selector::missing(const std::string& source,
                                              const base::Error& error) const {
  if (error.code() != ErrorCode::NotFound) return tl::unexpected(error);
  const std::vector<std::string> pieces = pieces_of(source);
  std::string folder;
  std::optional<std::string> near;
  for (const std::string& piece : pieces) {
    const Result<std::string> real = resolve_links(*request_.source, folder);
    const auto children = real ? request_.source->list(*real)
                               : Result<std::vector<NamedNode>>(std::vector<NamedNode>());
    std::vector<std::string> names;
    for (const NamedNode& child : children.value_or(std::vector<NamedNode>()))
      names.push_back(child.name);
    if (std::find(names.begin(), names.end(), piece) == names.end()) {
      near = base::did_you_mean(piece, names);
      if (near) near = join_path(folder, *near);
      break;
    }
    folder = join_path(folder, piece);
  }
  return base::fail(ErrorCode::NotFound, "'{}' is not in the {}{}{}", shown(source),
                    request_.source_name,
                    near ? fmt::format("; did you mean '{}'?", shown(*near)) : std::string(),
                    error.cause().find("ignore file") != std::string::npos
                        ? std::string(" (the ignore file leaves it out)")
                        : std::string());
}

Result<> Selector::expand_glob(const std::string& folder, const std::vector<std::string>& pieces,
                               size_t at, std::vector<std::string>& found) {
  const PathPattern pattern = TRY(PathPattern::create(pieces[at], PathPattern::Stars::OneFolder));
  for (const NamedNode& child : TRY(request_.source->list(folder))) {
    if (!pattern.matches(child.name)) continue;
    const std::string path = join_path(folder, child.name);
    if (at + 1 == pieces.size())
      found.push_back(path);
    else if (child.node.type == NodeType::Directory)
      TRY(expand_glob(path, pieces, at + 1, found));
  }
  return {};
}

/// Paths that a source names. Folders before the first wildcard may be links.
Result<std::vector<std::string>> Selector::matches(const std::vector<std::string>& pieces) {
  const auto first = std::find_if(pieces.begin(), pieces.end(), PathPattern::has_wildcard);
  const std::string plain = base::join({pieces.begin(), first}, "/");
  std::vector<std::string> found;
  if (first == pieces.end()) {
    found.push_back(plain);
    return found;
  }
  // A pattern in a folder that does not exist matches nothing, as with Docker.
  const Result<std::string> folder = resolve_links(*request_.source, plain);
  if (!folder && folder.error().code() == ErrorCode::NotFound) return found;
  if (!folder) return tl::unexpected(folder.error());
  const Result<Node> node = request_.source->node(*folder);
  if (!node || node->type != NodeType::Directory) return found;
  const auto start = static_cast<size_t>(first - pieces.begin());
  TRY(expand_glob(*folder, pieces, start, found));
  return found;
}

Result<> Selector::add(const std::string& source) {
  if (request_.parents) return add_with_parents(source);
  const std::vector<std::string> pieces = pieces_of(source);
  for (const std::string& path : TRY(matches(pieces))) {
    const Result<> added = add_match(path);
    if (!added) return missing(path, added.error());
  }
  return {};
}

Result<> Selector::add_match(const std::string& path) {
  const Tree& tree = *request_.source;
  const std::string real = TRY(resolve_links(tree, path));
  Node node = TRY(tree.node(real));
  SelectedSource source;
  source.name = path.substr(path.rfind('/') + 1);
  if (node.type == NodeType::Directory) {
    source.kind = Kind::Contents;
    source.nodes.push_back(
        {.path = "", .node = std::move(node), .source = {.tree = &tree, .path = real}});
    TRY(walk(tree, real, "", exclude_.root(), source));
    selection_.sources.push_back(std::move(source));
    return {};
  }
  if (exclude_.excludes(source.name) || exclude_.excludes(path)) return {};
  if (node.type == NodeType::Socket) return {};
  if (request_.unpack && node.type == NodeType::File && TRY(unpack(tree, real))) return {};
  source.nodes.push_back(
      {.path = "", .node = std::move(node), .source = {.tree = &tree, .path = real}});
  selection_.sources.push_back(std::move(source));
  return {};
}

Result<> Selector::add_node(SelectedNode node, SelectedSource& source) {
  if (++count_ > base::limits::context_entries_max)
    return base::fail(ErrorCode::InvalidArgument,
                      "there are more than {} files to copy; leave some out with .dockerignore",
                      base::limits::context_entries_max);
  source.nodes.push_back(std::move(node));
  return {};
}

/// Everything below `folder`, by names.
Result<> Selector::walk(const Tree& tree, const std::string& folder, const std::string& relative,
                        const Ignore::State& state, SelectedSource& source) {
  TRY(check_depth(relative));
  for (NamedNode& child : TRY(tree.list(folder))) {
    const std::string path = join_path(relative, child.name);
    const Ignore::State own = exclude_.state(state, path);
    const bool is_folder = child.node.type == NodeType::Directory;
    if (own.excluded && !(is_folder && exclude_.may_include_below(path))) continue;
    if (child.node.type == NodeType::Socket) continue;  // of no use without its program
    const std::string tree_path = join_path(folder, child.name);
    const size_t place = source.nodes.size();
    TRY(add_node(
        {.path = path, .node = std::move(child.node), .source = {.tree = &tree, .path = tree_path}},
        source));
    if (!is_folder) continue;
    TRY(walk(tree, tree_path, path, own, source));
    // Excluded, and nothing in it is let in again.
    if (own.excluded && source.nodes.size() == place + 1) source.nodes.pop_back();
  }
  return {};
}

/// `--parents`: a pattern below a root, which is what stands before `/./`.
Result<> Selector::add_with_parents(const std::string& source) {
  const size_t pivot = source.find("/./");
  const std::string above = pivot == std::string::npos ? "" : source.substr(0, pivot);
  const std::string below = pivot == std::string::npos ? source : source.substr(pivot + 3);
  const std::string pattern_text = base::join(pieces_of(below), "/");
  for (const std::string& root : TRY(matches(pieces_of(above)))) {
    const Result<std::string> real = resolve_links(*request_.source, root);
    if (!real) return missing(root, real.error());
    if (pattern_text.empty()) {
      TRY(add_match(root));
      continue;
    }
    if (!PathPattern::has_wildcard(pattern_text)) {
      const Result<Node> node = request_.source->node(join_path(*real, pattern_text));
      if (!node) return missing(join_path(root, pattern_text), node.error());
    }
    SelectedSource selected{.kind = Kind::Contents, .name = "", .nodes = {}};
    Node top = TRY(request_.source->node(*real));
    selected.nodes.push_back(
        {.path = "", .node = std::move(top), .source = {.tree = request_.source, .path = *real}});
    TRY(walk_pattern(*real, "", TRY(PathPattern::create(pattern_text)), selected));
    if (selected.nodes.size() > 1) selection_.sources.push_back(std::move(selected));
  }
  return {};
}

/// Nodes that match, with what is below them and the folders above them.
Result<> Selector::walk_pattern(const std::string& root, const std::string& relative,
                                const PathPattern& pattern, SelectedSource& source) {
  const Tree& tree = *request_.source;
  TRY(check_depth(relative));
  for (NamedNode& child : TRY(tree.list(join_path(root, relative)))) {
    const std::string path = join_path(relative, child.name);
    const bool is_folder = child.node.type == NodeType::Directory;
    const bool excluded = exclude_.excludes(path);
    if (excluded && !(is_folder && exclude_.may_include_below(path))) continue;
    if (child.node.type == NodeType::Socket) continue;
    const bool matched = pattern.matches_or_parent(path);
    if (!matched && !(is_folder && pattern.may_match_below(path))) continue;
    const size_t place = source.nodes.size();
    TRY(add_node({.path = path,
                  .node = std::move(child.node),
                  .source = {.tree = &tree, .path = join_path(root, path)}},
                 source));
    if (!is_folder) continue;
    TRY(walk_pattern(root, path, pattern, source));
    if ((!matched || excluded) && source.nodes.size() == place + 1) source.nodes.pop_back();
  }
  return {};
}

Result<bool> Selector::unpack(const Tree& tree, const std::string& path) {
  if (!TRY(is_archive(tree, path))) return false;
  std::unique_ptr<Tree> archive =
      TRY_DURING(open_tar_file(tree, path, {.spool_folder = request_.spool_folder}), "unpack '{}'",
                 shown(path));
  TRY(add_archive(std::move(archive), path));
  return true;
}

Result<> Selector::add_archive(std::unique_ptr<Tree> archive, const std::string& name) {
  SelectedSource source{.kind = Kind::Archive, .name = name, .nodes = {}};
  std::shared_ptr<const Tree> tree = std::move(archive);
  Node top = TRY(tree->node(""));
  source.nodes.push_back(
      {.path = "", .node = std::move(top), .source = {.tree = tree.get(), .path = ""}});
  TRY(walk(*tree, "", "", exclude_.root(), source));
  selection_.archives.push_back(std::move(tree));
  selection_.sources.push_back(std::move(source));
  return {};
}

Result<> Selector::add_file(const CopyFile& file) {
  if (file.name.empty() || file.name == "." || file.name == ".." ||
      file.name.find('/') != std::string::npos)
    return base::fail(ErrorCode::InvalidArgument, "'{}' cannot be the name of a file",
                      shown(file.name));
  if (file.tree != nullptr && request_.unpack_files && TRY(unpack(*file.tree, file.path)))
    return {};
  SelectedNode node;
  node.node.mode = file.mode;
  node.node.modified_s = file.modified_s.value_or(0);
  node.made = !file.modified_s;
  node.source = {.tree = file.tree, .path = file.path, .bytes = file.content};
  node.node.size =
      file.tree == nullptr ? file.content.size() : TRY(file.tree->node(file.path)).size;
  SelectedSource source{.kind = Kind::File, .name = file.name, .nodes = {}};
  source.nodes.push_back(std::move(node));
  selection_.sources.push_back(std::move(source));
  return {};
}

/// Length before content, so that no two selections are the same text.
class KeyText {
 public:
  void text(std::string_view bytes) {
    number(bytes.size());
    hash_.update(bytes);
  }
  void number(uint64_t value) { hash_.update(fmt::format("{};", value)); }
  std::string finish() { return hash_.finish(); }

 private:
  base::Sha256 hash_;
};

Result<> add_to_key(KeyText& key, const SelectedNode& selected) {
  const Node& node = selected.node;
  key.text(selected.path);
  for (const uint64_t value :
       {static_cast<uint64_t>(node.type), uint64_t{node.mode}, uint64_t{node.user},
        uint64_t{node.group}, node.size, uint64_t{node.device_major}, uint64_t{node.device_minor}})
    key.number(value);
  key.text(node.link);
  key.number(node.xattrs.size());
  for (const auto& [name, value] : node.xattrs) {
    key.text(name);
    key.text(value);
  }
  if (node.type != NodeType::File) return {};
  const FileSource& source = selected.source;
  key.text(source.tree == nullptr ? base::sha256_of(source.bytes)
                                  : TRY(source.tree->content_digest(source.path)));
  return {};
}

}  // namespace

Result<std::shared_ptr<const CopySelection>> select_copy(const CopyRequest& request) {
  auto selection = std::make_shared<CopySelection>();
  selection->request = request;
  if (request.source == nullptr && !request.sources.empty())
    return base::fail(ErrorCode::Internal, "sources without a tree");
  if (!request.chmod.empty()) TRY(changed_mode(request.chmod, 0644, false));
  Ignore exclude = TRY_DURING(Ignore::from_patterns(request.exclude), "--exclude");
  TRY(Selector(*selection, std::move(exclude)).run());
  return selection;
}

Result<std::string> copy_key(const CopySelection& selection) {
  const CopyRequest& request = selection.request;
  KeyText key;
  for (const std::string* text :
       {&request.target, &request.working_dir, &request.chown, &request.chmod})
    key.text(*text);
  key.number(request.link ? 1 : 0);
  for (const SelectedSource& source : selection.sources) {
    key.number(static_cast<uint64_t>(source.kind));
    key.text(source.name);
    key.number(source.nodes.size());
    std::map<uint64_t, size_t> hard_links;  // which names are one file, whatever its number
    for (const SelectedNode& node : source.nodes) {
      TRY(add_to_key(key, node));
      const uint64_t id = node.node.hard_link_id;
      key.number(id == 0 ? 0 : hard_links.emplace(id, hard_links.size() + 1).first->second);
    }
  }
  return key.finish();
}

}  // namespace builder
