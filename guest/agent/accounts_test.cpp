#include "guest/agent/accounts.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

using agent::Account;
using agent::resolve_account;

namespace {

base::UniqueFd file_with(const std::string& content) {
  base::UniqueFd fd(::memfd_create("accounts", MFD_CLOEXEC));
  REQUIRE(base::write_all(fd.get(), content));
  REQUIRE(::lseek(fd.get(), 0, SEEK_SET) == 0);
  return fd;
}

const std::string passwd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "broken line\n"
    "alice:x:1000:100:Alice:/home/alice:/bin/sh\n"
    "1234:x:55:56::/numeric:/bin/sh";
const std::string group =
    "root:x:0:\n"
    "users:x:100:alice\n"
    "wheel:x:10:bob,alice\n"
    "docker:x:999:alicette\n";

base::Result<Account> resolve(const std::string& user, std::vector<std::string> extra = {},
                              const std::string& group_text = group) {
  const base::UniqueFd passwd_file = file_with(passwd);
  const base::UniqueFd group_file = file_with(group_text);
  return resolve_account(user, extra, {passwd_file.get(), group_file.get()});
}

}  // namespace

TEST_CASE("no user means root with its home") {
  const auto account = resolve("");

  REQUIRE(account);
  CHECK(account->uid == 0);
  CHECK(account->gid == 0);
  CHECK(account->home == "/root");
}

TEST_CASE("a user's name brings its group, its supplementary groups and its home") {
  const auto account = resolve("alice");

  REQUIRE(account);
  CHECK(account->uid == 1000);
  CHECK(account->gid == 100);
  CHECK(account->groups == std::vector<gid_t>{10});
  CHECK(account->home == "/home/alice");
}

TEST_CASE("a number that is also a name is the name's user, another one needs no entry") {
  const auto named = resolve("1234");
  const auto bare = resolve("4321:77");
  const auto known = resolve("1000");

  REQUIRE(named);
  CHECK(named->uid == 55);
  REQUIRE(bare);
  CHECK(bare->uid == 4321);
  CHECK(bare->gid == 77);
  CHECK(bare->home == "/");
  REQUIRE(known);
  CHECK(known->gid == 100);
  CHECK(known->groups == std::vector<gid_t>{10});
}

TEST_CASE("a group given by hand replaces the user's, extra groups are added") {
  const auto account = resolve("alice:docker", {"wheel", "42"});

  REQUIRE(account);
  CHECK(account->gid == 999);
  CHECK(account->groups == std::vector<gid_t>{10, 42});
}

TEST_CASE("unknown names are errors that name them") {
  const auto user = resolve("mallory");
  const auto group_error = resolve("alice:nobodies");

  REQUIRE_FALSE(user);
  CHECK(user.error().code() == base::ErrorCode::NotFound);
  CHECK(user.error().to_string() == "unable to find user mallory: no such entry in /etc/passwd");
  REQUIRE_FALSE(group_error);
  CHECK(group_error.error().code() == base::ErrorCode::NotFound);
  CHECK_FALSE(resolve("4294967295"));
  CHECK_FALSE(resolve("-1"));
}

TEST_CASE("an image without account files has numeric users only") {
  CHECK(resolve_account("7:8", {}, {}));
  CHECK_FALSE(resolve_account("alice", {}, {}));
}

TEST_CASE("a member list longer than any buffer is searched to its end") {
  std::string line = "big:x:5000:";
  for (int i = 0; i < 200'000; ++i) line += "member" + std::to_string(i) + ",";

  const auto account = resolve("alice", {}, line + "alice\n" + group);

  REQUIRE(account);
  CHECK(account->groups == std::vector<gid_t>{10, 5000});
}

TEST_CASE("a line without end is no reason to hold it in memory") {
  const auto account = resolve("alice", {}, std::string(3u << 20, 'x'));

  REQUIRE(account);
  CHECK(account->groups.empty());
}
