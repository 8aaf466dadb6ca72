/// YAML by yaml-cpp's events. The tree is built here and not by yaml-cpp, because it must be
/// bounded while it grows: an alias is a copy, and copies of copies are how small files become
/// large. The nesting bound works because yaml-cpp tells us of every collection before it
/// recurses into it; our exception then unwinds its parser.

#include <algorithm>
#include <deque>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include "base/text.h"
#include "spec/decode.h"

namespace spec {
namespace {

constexpr const char* merge_key = "<<";

/// Ends the parse of one file; the reason has been reported.
struct Stop {};

/// A collection that is still being filled.
struct Frame {
  Node node;
  YAML::anchor_t anchor = YAML::NullAnchor;
  std::optional<Node> key;                      ///< Read, its value not yet.
  std::vector<Node> merged;                     ///< Values of `<<`, in order.
  std::unordered_map<std::string, Place> seen;  ///< Keys of a map so far.
};

struct Anchored {
  Node node;
  size_t nodes = 0;
  size_t bytes = 0;
};

size_t count_bytes(const Node& node) {
  size_t bytes = node.text.size() + node.key.size();
  for (const Node& child : node.children) bytes += count_bytes(child);
  return bytes;
}

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(uint16_t file, Budget& budget, Reporter& reporter)
      : file_(file), budget_(budget), reporter_(reporter) {}

  std::vector<Node> documents;

  /// yaml-cpp takes what cannot begin a value, such as a comma, for an empty document and stays
  /// where it is, for ever.
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (mark.pos == last_start_)
      stop(place(mark), "not valid YAML: nothing can begin like this",
           "remove it, or put the text in quotes");
    last_start_ = mark.pos;
    anchors_.clear();
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    deliver(start(mark, NodeKind::Null), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end())
      stop(place(mark), "an alias stands inside what it names",
           "a tree cannot contain itself; write the inner part out");
    spend(found->second.nodes, found->second.bytes, place(mark));
    deliver(found->second.node, YAML::NullAnchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = start(mark, NodeKind::Scalar);
    spend(0, value.size(), node.place);
    take_tag(tag, node);
    const bool plain = tag == "?" || (node.tag != MergeTag::None && value.empty());
    if (plain && is_plain_null(value)) {
      node.kind = NodeKind::Null;
    } else {
      node.text = value;
      if (tag == "?" || is_typing_tag(tag) || node.tag != MergeTag::None)
        node.type = plain_scalar_type(value);
    }
    deliver(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, NodeKind::List, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, NodeKind::Map, tag, anchor);
  }
  void OnMapEnd() override {
    apply_merge_keys(frames_.back());
    close();
  }

 private:
  Place place(const YAML::Mark& mark) const {
    return {.file = file_,
            .line = static_cast<uint32_t>(mark.line + 1),
            .column = static_cast<uint32_t>(mark.column + 1)};
  }

  [[noreturn]] void stop(const Place& where, std::string summary, std::string detail) {
    reporter_.error(where, "", std::move(summary), std::move(detail));
    throw Stop{};
  }

  void spend(size_t nodes, size_t bytes, const Place& where) {
    if (nodes > budget_.nodes_left || bytes > budget_.bytes_left)
      stop(where, "the stack file is too large once its aliases are filled in",
           fmt::format("at most {} values and {} bytes of text are read",
                       base::limits::stack_nodes_max, base::limits::stack_text_bytes_max));
    budget_.nodes_left -= nodes;
    budget_.bytes_left -= bytes;
  }

  Node start(const YAML::Mark& mark, NodeKind kind) {
    Node node;
    node.kind = kind;
    node.place = place(mark);
    spend(1, 0, node.place);
    return node;
  }

  static bool is_typing_tag(const std::string& tag) {
    return tag == "tag:yaml.org,2002:int" || tag == "tag:yaml.org,2002:float" ||
           tag == "tag:yaml.org,2002:bool" || tag == "tag:yaml.org,2002:null";
  }

  void take_tag(const std::string& tag, Node& node) {
    if (tag == "!reset") node.tag = MergeTag::Reset;
    if (tag == "!override") node.tag = MergeTag::Override;
    const bool ours = node.tag != MergeTag::None;
    if (ours || tag.empty() || tag == "?" || tag == "!" || tag.starts_with("tag:yaml.org,2002:"))
      return;
    const auto nearest = base::did_you_mean(tag, {"!reset", "!override"});
    reporter_.error(node.place, "", fmt::format("unknown tag '{}'", tag),
                    "the tags of stack files are !reset and !override",
                    nearest ? fmt::format("did you mean '{}'?", *nearest) : "");
  }

  void open(const YAML::Mark& mark, NodeKind kind, const std::string& tag, YAML::anchor_t anchor) {
    if (frames_.size() >= static_cast<size_t>(base::limits::stack_depth_max))
      stop(place(mark), "nested too deeply",
           fmt::format("at most {} levels are read", base::limits::stack_depth_max));
    Frame frame;
    frame.node = start(mark, kind);
    frame.anchor = anchor;
    take_tag(tag, frame.node);
    frames_.push_back(std::move(frame));
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    deliver(std::move(frame.node), frame.anchor);
  }

  /// A finished node goes where it belongs: into the open collection, or it is a document.
  void deliver(Node node, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) remember(anchor, node);
    if (frames_.empty()) {
      if (!node.is_null()) documents.push_back(std::move(node));
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.is_list()) {
      frame.node.children.push_back(std::move(node));
    } else if (!frame.key) {
      frame.key = std::move(node);
    } else {
      deliver_member(frame, *std::exchange(frame.key, std::nullopt), std::move(node));
    }
  }

  void remember(YAML::anchor_t anchor, const Node& node) {
    Anchored anchored{.node = node, .nodes = count_nodes(node), .bytes = count_bytes(node)};
    spend(anchored.nodes, anchored.bytes, node.place);
    anchors_[anchor] = std::move(anchored);
  }

  void deliver_member(Frame& frame, const Node& key, Node value) {
    if (!key.is_scalar() || key.type != ScalarType::String) {
      reporter_.error(
          key.place, "", "a key must be a text",
          fmt::format("this key is {}; put it in quotes", key.is_null() ? "empty" : describe(key)));
      return;
    }
    if (key.text == merge_key) {
      frame.merged.push_back(std::move(value));
      return;
    }
    value.key = key.text;
    value.key_place = key.place;
    if (value.is_null()) value.place = key.place;
    spend(0, value.key.size(), key.place);
    if (!check_key(value, reporter_)) return;
    take_key_tag(value);
    const auto [first, is_new] = frame.seen.try_emplace(value.key, key.place);
    if (!is_new) {
      reporter_.error(
          key.place, "", fmt::format("mapping key '{}' is written twice", key.text),
          fmt::format("it stands in line {} already; keep one of them", first->second.line));
      return;
    }
    frame.node.children.push_back(std::move(value));
  }

  /// `<<: *a` and `<<: [*a, *b]`: what is written out wins, then the earlier of the list.
  void apply_merge_keys(Frame& frame) {
    std::vector<Node> sources;
    for (Node& merged : frame.merged) {
      if (merged.is_list())
        for (Node& item : merged.children) sources.push_back(std::move(item));
      else
        sources.push_back(std::move(merged));
    }
    for (Node& source : sources) {
      if (!source.is_map()) {
        reporter_.error(source.place, "", "a merge key takes a map or a list of maps",
                        fmt::format("this is {}", describe(source)));
        continue;
      }
      for (Node& child : source.children)
        if (frame.seen.try_emplace(child.key, child.key_place).second)
          frame.node.children.push_back(std::move(child));
    }
  }

  uint16_t file_;
  Budget& budget_;
  Reporter& reporter_;
  std::deque<Frame> frames_;
  int last_start_ = -1;  ///< Of the document before, as an offset.
  std::unordered_map<YAML::anchor_t, Anchored> anchors_;
};

/// A tab before the first letter of a line; what yaml-cpp then complains about is something else.
bool is_indented_by_tab(std::string_view text, int line) {
  for (; line > 0 && !text.empty(); --line)
    text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  text = text.substr(0, text.find_first_not_of(" \t"));
  return text.find('\t') != std::string_view::npos;
}

std::string hint_for(const YAML::Exception& problem, std::string_view file) {
  const std::string& text = problem.msg;
  if (text.find("tab") != std::string::npos || is_indented_by_tab(file, problem.mark.line))
    return "YAML is indented with spaces; replace the tab";
  if (text.find("end of map") != std::string::npos)
    return "check the indentation of this line and a missing ':' above it";
  return "check the indentation and the quotes around this place";
}

}  // namespace

std::vector<Node> decode_yaml(std::string_view text, uint16_t file, Budget& budget,
                              Reporter& reporter) {
  TreeBuilder builder(file, budget, reporter);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop&) {
    return {};
  } catch (const YAML::Exception& problem) {
    const bool known = !problem.mark.is_null();
    const Place where{.file = file,
                      .line = known ? static_cast<uint32_t>(problem.mark.line + 1) : 0,
                      .column = known ? static_cast<uint32_t>(problem.mark.column + 1) : 0};
    reporter.error(where, "", "not valid YAML: " + problem.msg, hint_for(problem, text));
    return {};
  }
  return std::move(builder.documents);
}

}  // namespace spec
