#include <doctest/doctest.h>

#include "planner/draft.h"
#include "planner/test_stack.h"

using namespace planner;        // NOLINT(google-build-using-namespace)
using namespace planner::test;  // NOLINT(google-build-using-namespace)

namespace {

NetworkRecord network(const std::string& name) {
  NetworkRecord record;
  record.name = record.key = record.applied.name = name;
  return record;
}

VolumeRecord volume(const std::string& name, bool anonymous = false) {
  VolumeRecord record;
  record.name = record.key = record.applied.name = name;
  record.anonymous = anonymous;
  return record;
}

/// The stack `shop` runs with its network and volume; beside it lies what nobody uses: the
/// networks `lonely` and `shop_back` (which is the stack's), the volumes `spare` and `box-0`.
Snapshot world() {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  Snapshot actual = after(*plan_up(stack, nothing()), nothing());
  actual.networks["default"] = builtin_network();
  actual.networks["lonely"] = network("lonely");
  actual.networks["shop_back"] = network("shop_back");
  actual.networks["shop_back"].project = "shop";
  actual.volumes["spare"] = volume("spare");
  actual.volumes["box-0"] = volume("box-0", true);
  actual.volumes["db-0"] = volume("db-0", true);
  actual.containers.at("shop-db-1").anonymous_volumes.push_back("db-0");
  return actual;
}

std::string outcome(const base::Result<Plan>& plan) {
  return plan ? lines(*plan) : plan.error().to_string();
}

std::string notes(const Plan& plan) {
  std::string text;
  for (const Note& note : plan.notes) text += note.text + "\n";
  return text;
}

}  // namespace

TEST_CASE("a network and a volume made by hand belong to no project") {
  const auto made = plan_create_network(network("front"), nothing());
  const auto kept = plan_create_volume(volume("data"), nothing());

  CHECK(outcome(made) == "1 + network.front  create network\n");
  CHECK(outcome(kept) == "1 + volume.data  create volume\n");
  CHECK(made->project.empty());
  CHECK(after(*made, nothing()).networks.at("front").project.empty());
}

TEST_CASE("no network is made under a name that is taken, built in, or means none") {
  CHECK(plan_create_network(network("lonely"), world()).error().code() == base::ErrorCode::Exists);
  CHECK(plan_create_network(network("default"), nothing()).error().code() ==
        base::ErrorCode::Exists);
  CHECK(outcome(plan_create_network(network("none"), nothing())).find("choose another name") !=
        std::string::npos);
  CHECK(plan_create_network(network("../x"), nothing()).error().code() ==
        base::ErrorCode::InvalidArgument);
}

TEST_CASE("a volume that exists is not made again, unless its folder is missing") {
  Snapshot actual = world();
  const auto taken = plan_create_volume(volume("spare"), actual);
  actual.volumes.at("spare").present = false;
  const auto lost = plan_create_volume(volume("spare"), actual);

  CHECK(taken.error().code() == base::ErrorCode::Exists);
  CHECK(outcome(lost) == "1 + volume.spare  create volume\n");
  CHECK(plan_create_volume(volume("a/b"), actual).error().code() ==
        base::ErrorCode::InvalidArgument);
}

TEST_CASE("what a container uses is not removed, and the container is named") {
  CHECK(outcome(plan_remove_network({"lonely", "shop_default"}, world())) ==
        "network 'shop_default' is used by container 'shop-db-1' and cannot be deleted; remove "
        "that container first");
  CHECK(outcome(plan_remove_volume({"spare", "shop_data"}, world())) ==
        "volume 'shop_data' is used by container 'shop-db-1' and cannot be deleted; remove that "
        "container first");
  CHECK(plan_remove_volume({"db-0"}, world()).error().code() == base::ErrorCode::Busy);
}

TEST_CASE("the built-in network cannot be deleted, be it there or not") {
  CHECK(outcome(plan_remove_network({"default"}, world()))
            .starts_with("cannot delete a builtin network: default"));
  CHECK(plan_remove_network({"default"}, nothing()).error().code() ==
        base::ErrorCode::InvalidState);
}

TEST_CASE("who names what does not exist is told what was meant, or how to find it") {
  CHECK(outcome(plan_remove_network({"lonly"}, world())) ==
        "network not found: lonly; did you mean 'lonely'?");
  CHECK(outcome(plan_remove_volume({"x"}, nothing())) ==
        "volume not found: x; 'container volume list' shows those there are");
}

TEST_CASE("named twice, removed once") {
  CHECK(outcome(plan_remove_network({"lonely", "lonely"}, world())) ==
        "1 - network.lonely  remove network\n");
}

TEST_CASE("all means all that no container uses, and the plan tells what stays") {
  const Plan networks = plan_remove_all_networks(world());
  const Plan volumes = plan_remove_all_volumes(world());

  CHECK(lines(networks) ==
        "1 - network.lonely  remove network\n"
        "2 - network.shop_back  remove network\n");
  CHECK(notes(networks) == "network 'shop_default' is used by container 'shop-db-1'; kept\n");
  CHECK(lines(volumes) ==
        "1 - volume.box-0  remove volume\n"
        "2 - volume.spare  remove volume\n");
  CHECK(notes(volumes) ==
        "volume 'db-0' is used by container 'shop-db-1'; kept\n"
        "volume 'shop_data' is used by container 'shop-db-1'; kept\n");
}

TEST_CASE("a prune of networks leaves those of a stack that has containers") {
  Snapshot actual = world();
  CHECK(lines(plan_prune_networks(actual)) == "1 - network.lonely  remove network\n");

  actual.containers.clear();
  CHECK(lines(plan_prune_networks(actual)) ==
        "1 - network.lonely  remove network\n"
        "2 - network.shop_back  remove network\n"
        "3 - network.shop_default  remove network\n");
}

TEST_CASE("a prune of volumes takes anonymous ones, and named ones only if asked") {
  CHECK(lines(plan_prune_volumes(world(), false)) == "1 - volume.box-0  remove volume\n");
  CHECK(lines(plan_prune_volumes(world(), true)) ==
        "1 - volume.box-0  remove volume\n"
        "2 - volume.spare  remove volume\n");
}
