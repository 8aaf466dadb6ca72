#include <doctest/doctest.h>

#include "guest/agent/build/tar_reader.h"
#include "guest/agent/build/tar_writer.h"

using namespace agent;

namespace {

/// A source that gives `piece` bytes at a time.
TarReader::Source source_of(std::string_view bytes, size_t piece) {
  return [bytes, piece](char* buffer, size_t capacity) mutable -> base::Result<size_t> {
    const size_t count = std::min({bytes.size(), piece, capacity});
    std::copy_n(bytes.data(), count, buffer);
    bytes.remove_prefix(count);
    return count;
  };
}

struct Read {
  std::vector<TarEntry> entries;
  std::vector<std::string> contents;
  std::string error;
};

Read read_all(std::string_view bytes, size_t piece = SIZE_MAX) {
  Read read;
  TarReader reader(source_of(bytes, piece));
  for (;;) {
    auto entry = reader.next();
    if (!entry) read.error = entry.error().to_string();
    if (!entry || !*entry) return read;
    read.entries.push_back(std::move(**entry));
    std::string& content = read.contents.emplace_back();
    for (;;) {
      const auto some = reader.content();
      if (!some) read.error = some.error().to_string();
      if (!some) return read;
      if (some->empty()) break;
      content += *some;
    }
  }
}

std::string archive(const TarEntry& entry, std::string_view content = "") {
  return tar_header(entry).append(content).append(tar_padding(content.size())).append(tar_end());
}

TarEntry file(std::string path, uint64_t size) {
  TarEntry entry;
  entry.path = std::move(path);
  entry.mode = 0644;
  entry.size = size;
  return entry;
}

void set_checksum(std::string& header) {
  std::fill_n(header.begin() + 148, 8, ' ');
  unsigned sum = 0;
  for (const char c : header.substr(0, 512)) sum += static_cast<unsigned char>(c);
  const std::string digits = fmt::format("{:06o}", sum);
  std::copy(digits.begin(), digits.end(), header.begin() + 148);
  header[154] = '\0';
}

}  // namespace

TEST_CASE("a member survives being written and read, in pieces of any size") {
  TarEntry entry = file("etc/motd", 600);
  entry.mode = 04755;
  entry.user = 1000;
  entry.group = 50;
  entry.modified_s = 1'700'000'000;
  entry.xattrs = {{"security.capability", std::string("\1\0\0=\n", 5)}, {"user.a", ""}};
  const std::string content(600, 'x');

  for (const size_t piece : {size_t{1}, size_t{511}, size_t{100'000}}) {
    const Read read = read_all(archive(entry, content), piece);

    CHECK(read.error == "");
    REQUIRE(read.entries.size() == 1);
    CHECK(read.entries[0].path == "etc/motd");
    CHECK(read.entries[0].mode == 04755);
    CHECK(read.entries[0].user == 1000);
    CHECK(read.entries[0].group == 50);
    CHECK(read.entries[0].modified_s == 1'700'000'000);
    CHECK(read.entries[0].xattrs == entry.xattrs);
    CHECK(read.contents[0] == content);
  }
}

TEST_CASE("what no ustar header holds is told by PAX records") {
  TarEntry entry = file(std::string(300, 'n'), 0);
  entry.type = TarType::Symlink;
  entry.link = "zi\xc3\xa9l/" + std::string(200, 'l');
  entry.user = 4'000'000'000;
  entry.group = 2'097'152;
  entry.modified_s = -5;

  const Read read = read_all(archive(entry));

  CHECK(read.error == "");
  REQUIRE(read.entries.size() == 1);
  CHECK(read.entries[0].path == entry.path);
  CHECK(read.entries[0].link == entry.link);
  CHECK(read.entries[0].user == entry.user);
  CHECK(read.entries[0].group == entry.group);
  CHECK(read.entries[0].modified_s == -5);
}

TEST_CASE("every type of member keeps its type and its numbers") {
  for (const TarType type : {TarType::HardLink, TarType::Symlink, TarType::Directory,
                             TarType::CharacterDevice, TarType::BlockDevice, TarType::Fifo}) {
    TarEntry entry = file("x", 0);
    entry.type = type;
    entry.link = type == TarType::HardLink || type == TarType::Symlink ? "target" : "";
    const bool device = type == TarType::CharacterDevice || type == TarType::BlockDevice;
    entry.device_major = device ? 0xfff : 0;
    entry.device_minor = device ? 0xfffff : 0;

    const Read read = read_all(archive(entry));

    CHECK(read.error == "");
    REQUIRE(read.entries.size() == 1);
    CHECK(read.entries[0].type == type);
    CHECK(read.entries[0].link == entry.link);
    CHECK(read.entries[0].device_major == entry.device_major);
    CHECK(read.entries[0].device_minor == entry.device_minor);
  }
}

TEST_CASE("content that is not taken is skipped") {
  const std::string two =
      tar_header(file("a", 5)) + "hello" + std::string(tar_padding(5)) + archive(file("b", 0));
  TarReader reader(source_of(two, 7));

  CHECK((*reader.next().value()).path == "a");
  CHECK((*reader.next().value()).path == "b");
  CHECK_FALSE(reader.next().value());
}

TEST_CASE("a GNU long name and a base-256 size are understood") {
  std::string name_header = tar_header(file("././@LongLink", 151));
  name_header[156] = 'L';
  set_checksum(name_header);
  std::string content(150, 'q');
  content.resize(512, '\0');
  std::string header = tar_header(file("short", 0));
  header[124] = static_cast<char>(0x80);
  std::fill_n(header.begin() + 125, 10, '\0');
  header[135] = 3;
  set_checksum(header);

  const Read read = read_all(name_header + content + header + "abc" + std::string(tar_padding(3)));

  CHECK(read.error == "");
  REQUIRE(read.entries.size() == 1);
  CHECK(read.entries[0].path == std::string(150, 'q'));
  CHECK(read.contents[0] == "abc");
}

TEST_CASE("an empty stream is an empty archive") { CHECK(read_all("").error == ""); }

TEST_CASE("damaged archives are refused with what is wrong") {
  const std::string whole = archive(file("a", 600), std::string(600, 'x'));
  std::string flipped = whole;
  flipped[0] = 'b';
  std::string negative = whole;
  std::fill_n(negative.begin() + 124, 12, static_cast<char>(0xff));
  set_checksum(negative);
  TarEntry with_record = file("a", 0);
  with_record.user = 4'000'000'000;
  std::string record = archive(with_record);
  record[512] = '9';

  CHECK(read_all(std::string_view(whole).substr(0, 700)).error ==
        "the tar stream is damaged: it ends in the middle of a member");
  CHECK(read_all(std::string_view(whole).substr(0, 300)).error ==
        "the tar stream is damaged: it ends in the middle of a member's header");
  CHECK(read_all(flipped).error == "the tar stream is damaged: a header's checksum is wrong");
  CHECK(read_all(negative).error == "the tar stream is damaged: a member has a negative size");
  CHECK(read_all(record).error == "the tar stream is damaged: an attribute has a wrong length");
}

TEST_CASE("the same entry gives the same bytes, whatever the order of its attributes' making") {
  TarEntry entry = file("a", 0);
  entry.xattrs = {{"user.b", "2"}};
  CHECK(tar_header(entry) == tar_header(entry));
  CHECK(tar_header(entry).size() == 512 + 512 + 512);
}
