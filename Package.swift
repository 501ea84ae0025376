// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

/// Settings for modules that are too slow in debug builds: the walk over every interleaving, records of many pages.
let optimized = settings + [.unsafeFlags(["-O"], .when(configuration: .debug))]

/// The layers of the product, the lowest first: a module imports modules of its own layer and of those below.
enum Layer: String {
    case system = "System"
    case values = "Values"
    case pages = "Pages"
    case guests = "Guests"
    case control = "Control"
}

func module(
    _ name: String,
    in layer: Layer,
    _ dependencies: [Target.Dependency] = [],
    settings: [SwiftSetting] = settings,
    resources: [Resource] = []
) -> Target {
    .target(
        name: name,
        dependencies: dependencies,
        path: "Sources/\(layer.rawValue)/\(name)",
        resources: resources,
        swiftSettings: settings
    )
}

/// What several test targets share.
func support(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Tests/Support/\(name)", swiftSettings: settings)
}

func tests(
    of name: String,
    _ dependencies: [Target.Dependency] = [],
    settings: [SwiftSetting] = settings
) -> Target {
    .testTarget(
        name: "\(name)Tests",
        dependencies: [.byName(name: name)] + dependencies,
        swiftSettings: settings
    )
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let configuration = Target.Dependency.product(name: "Configuration", package: "swift-configuration")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let nioHTTPTypes = Target.Dependency.product(name: "NIOHTTPTypes", package: "swift-nio-extras")
let systemPackage = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
    name: "pageferry",
    products: [
        .executable(name: "pageferry", targets: ["pageferry"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        // Without the trait JSON, whose parser tells no lines: Yams reads the file.
        .package(url: "https://github.com/apple/swift-configuration.git", from: "1.4.0", traits: []),
        .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0", traits: []),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras.git", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-system.git", from: "1.8.1"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift.git", from: "0.2.0"),
        // Only the core is used, without the traits that read configuration files and the whole of Foundation.
        .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.1", traits: []),
        .package(url: "https://github.com/jpsim/Yams.git", from: "6.2.2"),
    ],
    targets: [
        // System: the kernel, libraries of the host, and checks of input. Only LinuxSystem imports CShims, only OpenSSL
        // COpenSSL, and only Compression CCompression.
        .target(name: "CShims", path: "CShims", cSettings: [.define("_GNU_SOURCE")]),
        module("Outside", in: .system),
        module("LinuxSystem", in: .system, ["CShims", "Outside", systemPackage]),
        .systemLibrary(name: "COpenSSL", path: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        module("OpenSSL", in: .system, ["COpenSSL", "LinuxSystem", systemPackage]),
        .systemLibrary(
            name: "CCompression",
            path: "CCompression",
            pkgConfig: "libzstd",
            providers: [.apt(["liblz4-dev", "libzstd-dev"])]
        ),
        module("Compression", in: .system, ["CCompression", "LinuxSystem"]),
        module("HTTPRequests", in: .system, ["LinuxSystem", nioCore, nioHTTP1, nioPosix, systemPackage]),

        // Values: no sockets, no threads.
        module("Identity", in: .values, settings: optimized),
        module("PageProtocol", in: .values, ["Compression", "Identity", "Outside"]),
        module("Switchover", in: .values, ["Identity"], settings: optimized),
        module("Telemetry", in: .values, ["Identity", "Outside", histogram]),
        module("Exposition", in: .values, ["Telemetry"], settings: optimized),
        module("WorkingSet", in: .values, ["LinuxSystem"], settings: optimized),

        // Pages: memory moves.
        module("Connections", in: .pages, ["Identity", "LinuxSystem", "PageProtocol", logging]),
        module("PageServer", in: .pages, ["Compression", "LinuxSystem", "PageProtocol", "Telemetry"]),
        module("PageFetcher", in: .pages, ["Compression", "LinuxSystem", "PageProtocol", "Telemetry"]),
        module(
            "Snapshots",
            in: .pages,
            ["Connections", "Identity", "LinuxSystem", "OpenSSL", "PageProtocol", "PageServer", logging]
        ),

        // Guests: what can be moved, and what other processes hand over.
        module("Guest", in: .guests, ["LinuxSystem", "Outside", "Telemetry"]),
        module("Workloads", in: .guests, ["Guest", "LinuxSystem", "Outside", "Telemetry"]),
        .target(name: "KVMGuestCode", path: "Sources/Guests/KVMGuestCode"),
        module("KVMGuest", in: .guests, ["Guest", "KVMGuestCode", "LinuxSystem", "Telemetry"]),
        module("Attachments", in: .guests, ["Guest", "LinuxSystem", "PageProtocol", "Telemetry", logging]),
        module("Firecracker", in: .guests, ["HTTPRequests", "LinuxSystem", nioHTTP1]),
        module(
            "MicroVMGuest",
            in: .guests,
            ["Attachments", "Firecracker", "Guest", "LinuxSystem", "Outside", "Telemetry", logging]
        ),
        module(
            "FaultHandler",
            in: .guests,
            [
                "Attachments", "Connections", "LinuxSystem", "Outside", "PageFetcher", "PageProtocol", "Telemetry",
                "WorkingSet", logging,
            ]
        ),

        // Control: who runs.
        module("QMP", in: .control, ["LinuxSystem", logging, nioCore, nioPosix, systemPackage]),
        module(
            "Web",
            in: .control,
            [
                "Exposition", "LinuxSystem", "Outside", "Telemetry", httpTypes, hummingbirdCore, logging, nioCore,
                nioHTTPTypes, nioPosix,
            ],
            settings: settings,
            resources: [.embedInCode("Page")]
        ),
        module("RunLease", in: .control, ["Identity", "LinuxSystem", "PageProtocol"]),
        module(
            "Controller",
            in: .control,
            [
                "Compression", "Connections", "Exposition", "Guest", "Identity", "LinuxSystem", "Outside",
                "PageFetcher", "PageProtocol", "PageServer", "QMP", "RunLease", "Switchover", "Telemetry", logging,
            ]
        ),
        module("Orchestration", in: .control, ["Compression", "Identity", "LinuxSystem", "QMP", "Telemetry"]),

        // The command line, and what it measures.
        .target(
            name: "Bench",
            dependencies: [
                "Compression", "LinuxSystem", "Outside", "PageFetcher", "PageProtocol", "PageServer", "Telemetry",
                histogram,
            ],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "pageferry",
            dependencies: [
                "Attachments", "Bench", "Compression", "Controller", "Exposition", "FaultHandler", "Guest",
                "HTTPRequests", "Identity", "KVMGuest", "LinuxSystem", "MicroVMGuest", "Orchestration", "Outside",
                "PageFetcher", "PageProtocol",
                "PageServer", "QMP", "RunLease", "Snapshots", "Switchover", "Telemetry", "Web", "WorkingSet",
                "Workloads", argumentParser, configuration, histogram, logging, yams,
            ],
            swiftSettings: settings
        ),

        // Tests.
        .target(name: "PrivateMount", path: "Tests/Support/PrivateMount", cSettings: [.define("_GNU_SOURCE")]),
        support("FirecrackerRig", ["Firecracker", "LinuxSystem", "TestProcess"]),
        support("HTTPClient", ["LinuxSystem", systemPackage]),
        support("HugePages", ["LinuxSystem"]),
        support("LandedGuest", ["Guest", "LinuxSystem"]),
        support("LogLines", [logging]),
        support("OwnThread"),
        support("SnapshotClient", ["Connections", "Identity", "LinuxSystem", "PageProtocol"]),
        support("TestProcess", ["LinuxSystem", systemPackage]),
        tests(of: "Outside"),
        tests(of: "Compression"),
        tests(of: "LinuxSystem", ["HugePages", "OwnThread", "TestProcess", systemPackage]),
        tests(of: "PageProtocol", ["Compression", "Identity"]),
        tests(of: "Switchover", ["Identity"], settings: optimized),
        tests(of: "Telemetry", ["Identity"]),
        tests(of: "WorkingSet", ["LinuxSystem"]),
        tests(of: "Exposition", ["Telemetry"]),
        .testTarget(
            name: "PageTransferTests",
            dependencies: [
                "Compression", "HugePages", "LinuxSystem", "OwnThread", "PageFetcher", "PageProtocol", "PageServer",
                "Telemetry", "TestProcess", systemPackage,
            ],
            swiftSettings: settings
        ),
        tests(
            of: "Snapshots",
            [
                "Identity", "LinuxSystem", "LogLines", "OwnThread", "PageFetcher", "PageProtocol", "SnapshotClient",
                logging,
            ]
        ),
        tests(of: "Guest", ["TestProcess"]),
        tests(of: "Workloads", ["Guest", "LandedGuest", "LinuxSystem", "Telemetry"]),
        tests(of: "KVMGuest", ["Guest", "LandedGuest", "LinuxSystem", systemPackage]),
        tests(
            of: "Attachments",
            [
                "Guest", "HugePages", "LandedGuest", "LinuxSystem", "LogLines", "OwnThread", "TestProcess", logging,
                systemPackage,
            ]
        ),
        tests(of: "Firecracker", ["FirecrackerRig", "HugePages", "LinuxSystem", "OwnThread"]),
        tests(of: "MicroVMGuest", ["Firecracker", "Guest", "LinuxSystem", "TestProcess", logging]),
        tests(of: "FaultHandler", ["Attachments", "LinuxSystem", "PageProtocol", "Telemetry"]),
        tests(of: "QMP", ["LinuxSystem"]),
        tests(
            of: "Web",
            ["Exposition", "HTTPClient", "Identity", "LinuxSystem", "LogLines", "OwnThread", "Telemetry", logging]
        ),
        tests(of: "RunLease", ["Identity", "LinuxSystem", "OwnThread", "PrivateMount", systemPackage]),
        tests(
            of: "Controller",
            [
                "Connections", "Guest", "Identity", "LinuxSystem", "LogLines", "OwnThread", "PageProtocol", "QMP",
                "RunLease", "Switchover", "Telemetry", "Workloads", logging,
            ]
        ),
        .testTarget(
            name: "HostileInputTests",
            dependencies: [
                "Attachments", "Compression", "Controller", "FaultHandler", "Firecracker", "Guest", "Identity",
                "KVMGuest", "LinuxSystem", "MicroVMGuest", "PageProtocol", "QMP", "RunLease", "Telemetry", "WorkingSet",
                "Workloads",
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "Connections", "Firecracker", "FirecrackerRig", "HTTPClient", "HugePages", "Identity", "LinuxSystem",
                "Orchestration", "OwnThread", "PageProtocol", "SnapshotClient", "Telemetry", "TestProcess",
                "WorkingSet", "pageferry", argumentParser, logging,
            ],
            swiftSettings: settings
        ),
    ]
)
