/// Layers as tar: POSIX ustar headers, PAX records for what does not fit in them.

#include <algorithm>
#include <map>
#include <string>

#include "base/text.h"
#include "builder/copy.h"
#include "builder/copy_select.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

constexpr size_t block_bytes = 512;
constexpr size_t name_bytes_max = 100;
constexpr uint64_t id_max = 07777777;          ///< Seven octal digits.
constexpr uint64_t number_max = 077777777777;  ///< Eleven.

std::string shown(std::string_view path) { return "'/" + base::escape_controls(path) + "'"; }

struct Header {
  std::string name;
  std::string link;
  char type = '0';
  uint32_t mode = 0;
  uint64_t user = 0;
  uint64_t group = 0;
  uint64_t size = 0;
  int64_t modified_s = 0;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
};

/// A header's block; numbers and names that do not fit are left to PAX records.
std::string block_of(const Header& header) {
  std::string block(block_bytes, '\0');
  const auto put = [&](size_t at, std::string_view text) { block.replace(at, text.size(), text); };
  const auto octal = [&](size_t at, int digits, uint64_t value) {
    put(at, fmt::format("{:0{}o}", value, digits));
  };
  put(0, std::string_view(header.name).substr(0, name_bytes_max));
  octal(100, 7, header.mode);
  octal(108, 7, header.user <= id_max ? header.user : 0);
  octal(116, 7, header.group <= id_max ? header.group : 0);
  octal(124, 11, header.size <= number_max ? header.size : 0);
  const bool time_fits =
      header.modified_s >= 0 && static_cast<uint64_t>(header.modified_s) <= number_max;
  octal(136, 11, time_fits ? static_cast<uint64_t>(header.modified_s) : 0);
  put(148, "        ");
  block[156] = header.type;
  put(157, std::string_view(header.link).substr(0, name_bytes_max));
  put(257, std::string_view("ustar\00000", 8));
  octal(329, 7, header.device_major);
  octal(337, 7, header.device_minor);
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum));
  block[154] = '\0';
  return block;
}

/// `LENGTH key=value\n`, where the length counts itself.
void add_record(std::string& records, std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t size = rest + 1;
  while (std::to_string(size).size() + rest != size) ++size;
  records += fmt::format("{} {}=", size, key);
  records += value;
  records += '\n';
}

std::string padding(uint64_t size) {
  return std::string(static_cast<size_t>((block_bytes - size % block_bytes) % block_bytes), '\0');
}

char type_of(const LayerEntry& entry) {
  if (!entry.hard_link.empty()) return '1';
  switch (entry.node.type) {
    case NodeType::Symlink: return '2';
    case NodeType::CharacterDevice: return '3';
    case NodeType::BlockDevice: return '4';
    case NodeType::Directory: return '5';
    case NodeType::Fifo: return '6';
    case NodeType::File:
    case NodeType::Socket: break;
  }
  return '0';
}

class Writer {
 public:
  Writer(const LayerWriteOptions& options, const LayerSink& sink)
      : options_(options), sink_(sink) {}

  Result<> add(const LayerEntry& entry) {
    if (entry.node.type == NodeType::Socket)
      return base::fail(ErrorCode::Internal, "a socket cannot be in a layer");
    Header header = header_of(entry);
    TRY(write_records(header, entry));
    TRY(sink_(block_of(header)));
    if (header.size == 0) return {};
    TRY(write_content(entry, header.size));
    return sink_(padding(header.size));
  }

  Result<> end() { return sink_(std::string(2 * block_bytes, '\0')); }

 private:
  Header header_of(const LayerEntry& entry) const {
    const Node& node = entry.node;
    Header header{.name = entry.path, .type = type_of(entry), .mode = node.mode & 07777};
    if (node.type == NodeType::Directory) header.name += '/';
    header.link = entry.hard_link.empty() ? node.link : entry.hard_link;
    header.user = node.user;
    header.group = node.group;
    header.size = header.type == '0' ? node.size : 0;
    header.modified_s = entry.made ? options_.made_s : node.modified_s;
    if (options_.latest_s) header.modified_s = std::min(header.modified_s, *options_.latest_s);
    header.device_major = node.device_major;
    header.device_minor = node.device_minor;
    return header;
  }

  Result<> write_records(const Header& header, const LayerEntry& entry) {
    std::string records;
    const auto is_plain = [](std::string_view text) {
      return text.size() <= name_bytes_max && std::all_of(text.begin(), text.end(), [](char c) {
               return static_cast<unsigned char>(c) < 0x80;
             });
    };
    if (!is_plain(header.name)) add_record(records, "path", header.name);
    if (!is_plain(header.link)) add_record(records, "linkpath", header.link);
    if (header.size > number_max) add_record(records, "size", std::to_string(header.size));
    if (header.user > id_max) add_record(records, "uid", std::to_string(header.user));
    if (header.group > id_max) add_record(records, "gid", std::to_string(header.group));
    if (header.modified_s < 0 || static_cast<uint64_t>(header.modified_s) > number_max)
      add_record(records, "mtime", std::to_string(header.modified_s));
    if (entry.hard_link.empty())
      for (const auto& [name, value] : entry.node.xattrs)
        add_record(records, "SCHILY.xattr." + name, value);
    if (records.empty()) return {};
    const Header before{
        .name = "PaxHeaders.0/entry", .type = 'x', .mode = 0644, .size = records.size()};
    TRY(sink_(block_of(before)));
    TRY(sink_(records));
    return sink_(padding(records.size()));
  }

  Result<> write_content(const LayerEntry& entry, uint64_t size) {
    if (entry.source == nullptr) return base::fail(ErrorCode::Internal, "a file without content");
    const FileSource& source = *entry.source;
    if (source.tree == nullptr) return sink_(source.bytes);
    uint64_t written = 0;
    const auto changed = [&] {
      return base::fail(ErrorCode::InvalidState, "{} changed while it was copied; build again",
                        shown(source.path));
    };
    TRY(source.tree->read(source.path, [&](std::string_view bytes) -> Result<> {
      written += bytes.size();
      if (written > size) return changed();
      return sink_(bytes);
    }));
    return written == size ? Result<>() : changed();
  }

  const LayerWriteOptions& options_;
  const LayerSink& sink_;
};

/// Everything below a folder of a tree.
class Collector {
 public:
  Collector(const Tree& tree, Layer& layer) : tree_(tree), layer_(layer) {
    layer_.keeps.push_back(sources_);
  }

  void add(const std::string& path, Node&& node, const std::string& tree_path) {
    LayerEntry entry{.path = path, .node = std::move(node)};
    if (entry.node.type == NodeType::File)
      entry.source = &sources_->emplace_back(FileSource{.tree = &tree_, .path = tree_path});
    if (entry.node.hard_link_id != 0) {
      const auto [first, is_first] = names_.emplace(entry.node.hard_link_id, entry.path);
      if (!is_first) entry.hard_link = first->second;
    }
    layer_.entries.push_back(std::move(entry));
  }

  Result<> walk(const std::string& tree_path, const std::string& path) {
    TRY(check_depth(path));
    for (NamedNode& child : TRY(tree_.list(tree_path))) {
      if (child.node.type == NodeType::Socket) continue;
      const bool is_folder = child.node.type == NodeType::Directory;
      const std::string inner = join_path(path, child.name);
      const std::string tree_inner = join_path(tree_path, child.name);
      add(inner, std::move(child.node), tree_inner);
      if (is_folder) TRY(walk(tree_inner, inner));
    }
    return {};
  }

 private:
  const Tree& tree_;
  Layer& layer_;
  std::shared_ptr<std::deque<FileSource>> sources_ = std::make_shared<std::deque<FileSource>>();
  std::map<uint64_t, std::string> names_;
};

}  // namespace

Result<> write_layer(const Layer& layer, const LayerWriteOptions& options, const LayerSink& sink) {
  Writer writer(options, sink);
  for (const LayerEntry& entry : layer.entries)
    TRY_DURING(writer.add(entry), "write {}", shown(entry.path));
  return writer.end();
}

Result<> write_tree(const Tree& tree, const std::string& path, const LayerWriteOptions& options,
                    const LayerSink& sink) {
  Layer layer;
  Collector collector(tree, layer);
  Node node = TRY(tree.node(path));
  if (node.type == NodeType::Directory)
    TRY(collector.walk(path, ""));
  else
    collector.add(path.substr(path.rfind('/') + 1), std::move(node), path);
  return write_layer(layer, options, sink);
}

}  // namespace builder
