"""The extensions of Neutron that are here: ``/extensions``. Clients ask before they use one."""

from __future__ import annotations

from cumulet.errors import NotFound
from cumulet.network.resource import View
from cumulet.network.service import NETWORK
from cumulet.web.operation import Call

UPDATED = "2026-11-23T00:00:00-00:00"

EXTENSIONS = {
    "address-group": ("Address group", "Support address group"),
    "address-scope": ("Address scope", "Address scopes extension."),
    "agent": ("agent", "The agent management extension."),
    "allowed-address-pairs": ("Allowed Address Pairs", "Provides allowed address pairs"),
    "auto-allocated-topology": ("Auto Allocated Topology Services", "Auto Allocated Topology Services."),
    "availability_zone": ("Availability Zone", "The availability zone extension."),
    "binding": ("Port Binding", "Expose port bindings of a virtual port to external application"),
    "binding-extended": ("Port Bindings Extended", "Expose port bindings of a virtual port to external application"),
    "dns-integration": ("DNS Integration", "Provides integration with DNS."),
    "default-subnetpools": ("Default Subnetpools", "Provides ability to mark and use a subnetpool as the default."),
    "empty-string-filtering": ("Empty String Filtering Extension", "Allow filtering by attributes with empty string"),
    "external-net": ("Neutron external network", "Adds external network attribute to network resource."),
    "ext-gw-mode": ("Neutron L3 Configurable external gateway mode", "Extension of the router abstraction for snat"),
    "extra_dhcp_opt": ("Neutron Extra DHCP options", "Extra options configuration for DHCP."),
    "extraroute": ("Neutron Extra Route", "Extra routes configuration for L3 router"),
    "extraroute-atomic": ("Atomically add/remove extra routes", "Edit extra routes of a router on server side"),
    "fip-port-details": ("Floating IP Port Details Extension", "Add port_details attribute to Floating IP resource"),
    "expose-port-forwarding-in-fip": ("Expose Port Forwarding in FIP", "Add port_forwardings to Floating IP resource"),
    "flavors": ("Neutron Service Flavors", "Flavor specification for Neutron advanced services."),
    "floating-ip-port-forwarding": ("Floating IP Port Forwarding", "Port forwarding from floating IP to internal port"),
    "floating-ip-port-forwarding-description": ("Floating IP Port Forwarding description", "Description of each rule"),
    "floating-ip-port-forwarding-detail": ("Floating IP port forwarding detail", "Ids of forwardings in floating IPs"),
    "floating-ip-port-forwarding-port-ranges": ("Floating IP Port Forwarding ranges", "Add support to port ranges"),
    "filter-validation": ("Filter parameters validation", "Provides validation on filter parameters."),
    "ip_allocation": ("IP Allocation", "IP allocation extension."),
    "ip-substring-filtering": ("IP address substring filtering", "Filtering of ports by a part of an address"),
    "l2_adjacency": ("L2 Adjacency", "Display L2 Adjacency for Neutron Networks."),
    "metering": ("Neutron Metering", "Neutron Metering extension."),
    "metering_source_and_destination_fields": ("Metering by source and destination", "Their prefixes in rules"),
    "net-mtu": ("Network MTU", "Provides MTU attribute for a network resource."),
    "net-mtu-writable": ("Network MTU (writable)", "Provides a writable MTU attribute for a network resource."),
    "network-ip-availability": ("Network IP Availability", "Provides IP availability data for networks and subnets."),
    "network-segment-range": (
        "Neutron Network Segment Range",
        "Provides support for the network segment range management",
    ),
    "network_availability_zone": ("Network Availability Zone", "Availability zone support for network."),
    "pagination": ("Pagination support", "Extension that indicates that pagination is enabled."),
    "port-security": ("Port Security", "Provides port security"),
    "port-security-groups-filtering": ("Port Security Groups Filtering", "Filtering of ports by security groups"),
    "project-id": ("project_id field enabled", "Extension that indicates that project_id field is enabled."),
    "provider": ("Provider Network", "Expose mapping of virtual networks to physical networks"),
    "qos": ("Quality of Service", "The Quality of Service extension."),
    "qos-bw-limit-direction": ("Direction for QoS bandwidth limit rule", "Allow to configure QoS in both directions"),
    "qos-bw-minimum-ingress": (
        "Ingress direction for QoS minimum bandwidth rule",
        "Allow to configure QoS minumum bandwidth rule with ingress direction.",
    ),
    "qos-default": ("QoS default policy", "Expose the QoS default policy per project"),
    "qos-fip": ("Floating IP QoS", "The floating IP Quality of Service extension"),
    "qos-gateway-ip": ("Router gateway IP QoS", "The Router gateway IP Quality of Service extension"),
    "qos-port-network-policy": ("QoS port network policy ID", "Adds the policy of its network to a port"),
    "qos-pps-minimum": ("QoS minimum packet rate rule", "Allow to configure QoS minimum packet rate rule."),
    "qos-pps-minimum-rule-alias": ("QoS minimum packet rate rule alias", "Such rules by their own ids alone"),
    "qos-rule-type-details": ("Details of QoS rule types", "Expose details about QoS rule types supported by drivers"),
    "qos-rules-alias": ("QoS policy rules without the policy", "Rules of QoS policies by their own ids alone"),
    "quotas": ("Quota management support", "Expose functions for quotas management per project"),
    "quota_details": ("Quota details management support", "Expose functions for quotas usage statistics per project"),
    "rbac-address-group": ("Add address_group type to RBAC", "Add address_group type to network RBAC"),
    "rbac-address-scope": ("Add address_scope type to RBAC", "Add address_scope type to RBAC"),
    "rbac-policies": ("RBAC Policies", "Allows creation and modification of policies that control project access"),
    "rbac-security-groups": ("Add security_group type to network RBAC", "Add security_group type to network RBAC"),
    "rbac-subnetpool": ("Add subnetpool type to RBAC", "Add subnetpool type to RBAC"),
    "revision-if-match": ("If-Match constraints based on revision_number", "Conditional updates by revision_number"),
    "router": ("Neutron L3 Router", "Router abstraction with floating IPs."),
    "router_availability_zone": ("Router Availability Zone", "Availability zone support for router."),
    "security-group": ("security-group", "The security groups extension."),
    "security-groups-default-rules": ("Default rules for security groups", "The rules that new groups begin with"),
    "security-groups-normalized-cidr": ("Normalized CIDR field for security group rules", "Adds normalized_cidr"),
    "security-groups-rules-belongs-to-default-sg": ("Rule's default group field", "Adds belongs_to_default_sg"),
    "security-groups-shared-filtering": ("Security group filtering on the shared field", "Filtering by shared"),
    "security-groups-remote-address-group": ("Remote address group id field", "Adds remote_address_group_id to rules"),
    "segment": ("Segment", "Segments extension."),
    "service-type": ("Neutron Service Type Management", "API for retrieving service providers"),
    "sort-key-validation": ("Sort keys validation", "Provides validation on sort keys."),
    "sorting": ("Sorting support", "Extension that indicates that sorting is enabled."),
    "standard-attr-description": ("standard-attr-description", "Adds descriptions to standard attributes"),
    "standard-attr-revisions": ("Resource revision numbers", "Adds revision_number to all resources."),
    "standard-attr-segment": ("standard-attr-segment", "Add standard attributes to segments"),
    "standard-attr-tag": ("Tag support for resources with standard attribute", "Enables to set tags on resources."),
    "standard-attr-timestamp": ("Resource timestamps", "Adds created_at and updated_at fields to all resources."),
    "stateful-security-group": ("Stateful security group", "Indicates if the security group is stateful or not"),
    "subnet-external-network": ("Subnet belongs to an external network", "Adds router:external to subnets"),
    "subnet-dns-publish-fixed-ip": ("Subnet DNS publish fixed IP", "Provides DNS publish fixed IP to subnets"),
    "subnet_allocation": ("Subnet Allocation", "Enables allocation of subnets from a subnet pool"),
    "subnet-service-types": ("Subnet service types", "Provides ability to set the subnet service_types field"),
    "tag-creation": ("Tag creation extension", "Add the tags creation methods."),
    "tag-ports-during-bulk-creation": ("Tag Ports During Bulk Creation", "Allow to tag ports during bulk creation"),
    "trunk": ("Trunk Extension", "Provides support for trunk ports"),
    "trunk-details": ("Trunk port details", "Expose trunk port details"),
}


def _view(alias: str) -> View:
    name, description = EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": description, "updated": UPDATED, "links": []}


@NETWORK.operation("GET", "/extensions", rules=())
def list_extensions(call: Call[None, None]) -> View:
    """List the extensions that are here."""
    return {"extensions": [_view(alias) for alias in EXTENSIONS]}


@NETWORK.operation("GET", "/extensions/{alias}", rules=())
def show_extension(call: Call[None, None]) -> View:
    """Show an extension."""
    alias = call.path["alias"]
    if alias not in EXTENSIONS:
        raise NotFound(f"Extension with alias {alias} does not exist")
    return {"extension": _view(alias)}
