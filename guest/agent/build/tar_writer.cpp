#include "guest/agent/build/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

namespace agent {
namespace {

constexpr size_t block_bytes = 512;
constexpr size_t name_bytes_max = 100;
constexpr uint64_t seven_digits_max = 07777777;
constexpr uint64_t eleven_digits_max = 077777777777;
constexpr std::array<char, 2 * block_bytes> zeros{};

char type_flag(TarType type) {
  switch (type) {
    case TarType::File: return '0';
    case TarType::HardLink: return '1';
    case TarType::Symlink: return '2';
    case TarType::CharacterDevice: return '3';
    case TarType::BlockDevice: return '4';
    case TarType::Directory: return '5';
    case TarType::Fifo: return '6';
  }
  return '0';
}

/// `27 path=a/name\n`: the length counts its own digits.
std::string record(std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (fmt::formatted_size("{}", length) + rest != length)
    length = fmt::formatted_size("{}", length) + rest;
  return fmt::format("{} {}={}\n", length, key, value);
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

class Header {
 public:
  Header() : bytes_(block_bytes, '\0') {
    text(257, 6, "ustar");  // with the zero behind it
    text(263, 2, "00");
  }
  void text(size_t at, size_t size, std::string_view value) {
    std::memcpy(bytes_.data() + at, value.data(), std::min(size, value.size()));
  }
  /// `size` counts the zero behind the digits.
  void number(size_t at, size_t size, uint64_t value) {
    text(at, size - 1, fmt::format("{:0{}o}", value, size - 1));
  }
  void type(char flag) { bytes_[156] = flag; }
  std::string finish() {
    text(148, 8, "        ");
    unsigned sum = 0;
    for (const char c : bytes_) sum += static_cast<unsigned char>(c);
    text(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

/// Records for what the header cannot say.
std::string records_of(const TarEntry& entry) {
  std::string records;
  const auto add_text = [&](std::string_view key, const std::string& value) {
    if (value.size() > name_bytes_max || !is_ascii(value)) records += record(key, value);
  };
  const auto add_number = [&](std::string_view key, uint64_t value, uint64_t maximum) {
    if (value > maximum) records += record(key, fmt::format("{}", value));
  };
  for (const auto& [name, value] : entry.xattrs) records += record("SCHILY.xattr." + name, value);
  add_number("gid", entry.group, seven_digits_max);
  add_text("linkpath", entry.link);
  if (entry.modified_s < 0 || static_cast<uint64_t>(entry.modified_s) > eleven_digits_max)
    records += record("mtime", fmt::format("{}", entry.modified_s));
  add_text("path", entry.path);
  add_number("size", entry.size, eleven_digits_max);
  add_number("uid", entry.user, seven_digits_max);
  return records;
}

std::string extension(const std::string& records) {
  Header header;
  header.text(0, name_bytes_max, "PaxHeaders.0/entry");
  header.number(100, 8, 0644);
  header.number(108, 8, 0);
  header.number(116, 8, 0);
  header.number(124, 12, records.size());
  header.number(136, 12, 0);
  header.type('x');
  return header.finish().append(records).append(tar_padding(records.size()));
}

}  // namespace

std::string_view tar_padding(uint64_t size) {
  return {zeros.data(), (block_bytes - size % block_bytes) % block_bytes};
}

std::string_view tar_end() { return {zeros.data(), zeros.size()}; }

std::string tar_header(const TarEntry& entry) {
  std::string made;
  if (const std::string records = records_of(entry); !records.empty()) made = extension(records);
  const auto fitting = [](uint64_t value, uint64_t maximum) { return value > maximum ? 0 : value; };
  Header header;
  header.text(0, name_bytes_max, entry.path);
  header.number(100, 8, entry.mode & 07777u);
  header.number(108, 8, fitting(entry.user, seven_digits_max));
  header.number(116, 8, fitting(entry.group, seven_digits_max));
  header.number(124, 12, fitting(entry.size, eleven_digits_max));
  header.number(136, 12,
                entry.modified_s < 0
                    ? 0
                    : fitting(static_cast<uint64_t>(entry.modified_s), eleven_digits_max));
  header.type(type_flag(entry.type));
  header.text(157, name_bytes_max, entry.link);
  header.number(329, 8, entry.device_major);
  header.number(337, 8, entry.device_minor);
  return made + header.finish();
}

}  // namespace agent
