#include "guest/agent/accounts.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>

#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "guest/agent/limits.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  // The largest value means "leave unchanged" to the system calls.
  if (value == std::numeric_limits<uint32_t>::max()) return std::nullopt;
  return value;
}

/// Calls `on_line` for each line until it returns false. Only a line's beginning matters for
/// passwd; a group's member list may be long, so a line is given in pieces: `first` marks the
/// beginning of a line, `last` its end.
struct LinePiece {
  std::string_view text;
  bool first = true;
  bool last = true;
};

Result<> for_each_piece(int fd, const std::function<bool(const LinePiece&)>& on_piece) {
  if (fd < 0) return {};
  std::string held;
  bool first = true;
  std::vector<char> buffer(32 * 1024);
  uint64_t total = 0;
  for (;;) {
    const size_t count = TRY(base::read_some(fd, buffer));
    total += count;
    if (total > limits::account_file_bytes_max)
      return fail(ErrorCode::InvalidArgument,
                  "the container's /etc/passwd or /etc/group is larger than {} bytes",
                  limits::account_file_bytes_max);
    if (count == 0) break;
    std::string_view bytes(buffer.data(), count);
    while (!bytes.empty()) {
      const size_t newline = bytes.find('\n');
      held += bytes.substr(0, newline);
      const bool last = newline != std::string_view::npos;
      bytes.remove_prefix(last ? newline + 1 : bytes.size());
      if (!last && held.size() < limits::account_line_bytes_max) continue;
      if (!last) {
        // Cut at a comma, so that no member's name is torn apart.
        const size_t comma = held.rfind(',');
        const size_t cut = comma == std::string::npos ? held.size() : comma + 1;
        if (!on_piece({std::string_view(held).substr(0, cut), first, false})) return {};
        held.erase(0, cut);
        first = false;
        continue;
      }
      if (!on_piece({held, first, true})) return {};
      held.clear();
      first = true;
    }
  }
  if (!held.empty()) on_piece({held, first, true});
  return {};
}

struct PasswdEntry {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;
};

std::optional<PasswdEntry> parse_passwd(std::string_view line) {
  const std::vector<std::string> fields = base::split(line, ':');
  if (fields.size() < 6) return std::nullopt;
  const auto uid = number(fields[2]);
  const auto gid = number(fields[3]);
  if (!uid || !gid) return std::nullopt;
  return PasswdEntry{fields[0], *uid, *gid, fields[5]};
}

Result<std::optional<PasswdEntry>> find_user(int fd, const std::string& user) {
  const auto uid = number(user);
  std::optional<PasswdEntry> by_name;
  std::optional<PasswdEntry> by_uid;
  TRY(for_each_piece(fd, [&](const LinePiece& piece) {
    if (!piece.first || !piece.last) return true;
    auto entry = parse_passwd(piece.text);
    if (!entry) return true;
    if (entry->name == user)
      by_name = std::move(entry);
    else if (uid && entry->uid == *uid && !by_uid)
      by_uid = std::move(entry);
    return !by_name;
  }));
  return by_name ? std::move(by_name) : std::move(by_uid);
}

/// Goes through the group file once: numbers of the wanted names, and groups `member` is in.
class GroupSearch {
 public:
  GroupSearch(std::string member, std::vector<std::string> wanted)
      : member_(std::move(member)), wanted_(std::move(wanted)), found_(wanted_.size()) {}

  bool on_piece(const LinePiece& piece) {
    std::string_view members = piece.text;
    if (piece.first) members = begin_line(piece.text);
    if (!gid_ || member_.empty()) return true;
    for (const std::string& name : base::split(members, ','))
      if (name == member_ && groups_.size() < limits::groups_max) groups_.push_back(*gid_);
    return true;
  }

  const std::vector<gid_t>& groups() const { return groups_; }
  /// A name from the file, or else a number.
  Result<gid_t> wanted(size_t index) const {
    if (found_[index]) return *found_[index];
    if (const auto gid = number(wanted_[index])) return *gid;
    return fail(ErrorCode::NotFound, "unable to find group {}: no such entry in /etc/group",
                wanted_[index]);
  }

 private:
  /// Returns the member list.
  std::string_view begin_line(std::string_view line) {
    gid_.reset();
    const size_t name_end = line.find(':');
    const size_t password_end = line.find(':', name_end + 1);
    if (name_end == std::string_view::npos || password_end == std::string_view::npos) return {};
    const size_t gid_end = line.find(':', password_end + 1);
    if (gid_end == std::string_view::npos) return {};
    gid_ = number(line.substr(password_end + 1, gid_end - password_end - 1));
    const std::string_view name = line.substr(0, name_end);
    for (size_t i = 0; i < wanted_.size(); ++i)
      if (gid_ && wanted_[i] == name && !found_[i]) found_[i] = *gid_;
    return line.substr(gid_end + 1);
  }

  std::string member_;
  std::vector<std::string> wanted_;
  std::vector<std::optional<gid_t>> found_;
  std::optional<gid_t> gid_;
  std::vector<gid_t> groups_;
};

}  // namespace

Result<Account> resolve_account(const std::string& user,
                                const std::vector<std::string>& extra_groups,
                                const AccountFiles& files) {
  if (extra_groups.size() > limits::groups_max)
    return fail(ErrorCode::InvalidArgument, "more than {} supplementary groups",
                limits::groups_max);
  const size_t colon = user.find(':');
  const std::string name = colon == 0 || user.empty() ? "0" : user.substr(0, colon);
  const bool group_given = colon != std::string::npos && colon + 1 < user.size();

  Account account;
  const auto entry = TRY(find_user(files.passwd_fd, name));
  if (entry) {
    account.uid = entry->uid;
    account.gid = entry->gid;
    if (!entry->home.empty()) account.home = entry->home;
  } else if (const auto uid = number(name)) {
    account.uid = *uid;
  } else {
    return fail(ErrorCode::NotFound, "unable to find user {}: no such entry in /etc/passwd", name);
  }

  std::vector<std::string> wanted = extra_groups;
  if (group_given) wanted.push_back(user.substr(colon + 1));
  // A group given by hand replaces the user's own ones.
  GroupSearch search(entry && !group_given ? entry->name : "", wanted);
  TRY(for_each_piece(files.group_fd,
                     [&](const LinePiece& piece) { return search.on_piece(piece); }));
  if (group_given) account.gid = TRY(search.wanted(wanted.size() - 1));
  account.groups = search.groups();
  for (size_t i = 0; i < extra_groups.size(); ++i) account.groups.push_back(TRY(search.wanted(i)));
  std::sort(account.groups.begin(), account.groups.end());
  account.groups.erase(std::unique(account.groups.begin(), account.groups.end()),
                       account.groups.end());
  std::erase(account.groups, account.gid);
  return account;
}

}  // namespace agent
