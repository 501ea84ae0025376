// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

func room(_ name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = []) -> Target {
    .target(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: settings)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = []) -> Target {
    .testTarget(
        name: "\(name)Tests",
        dependencies: [.byName(name: name)] + dependencies,
        exclude: exclude,
        swiftSettings: settings
    )
}

/// The walk over every interleaving takes minutes unless it is optimized, and a record of millions of pages many seconds.
let optimized = settings + [.unsafeFlags(["-O"], .when(configuration: .debug))]

let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

let package = Package(
    name: "pageferry",
    products: [
        .executable(name: "pageferry", targets: ["pageferry"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-system.git", from: "1.8.1"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift.git", from: "0.2.0"),
    ],
    targets: [
        // What comes from outside: imports nothing.
        room("Outside"),

        // The kernel.
        .target(name: "CShims", path: "CShims", cSettings: [.define("_GNU_SOURCE")]),
        room("LinuxSystem", ["CShims", "Outside", .product(name: "SystemPackage", package: "swift-system")]),

        // Values: no sockets, no threads.
        room("PageProtocol", ["Outside"]),
        .target(name: "Switchover", swiftSettings: optimized),
        room("Telemetry", ["Outside", .product(name: "Histogram", package: "hdrhistogram-swift")]),
        room("Guest", ["LinuxSystem", "Outside", "Telemetry"]),
        .target(name: "WorkingSet", dependencies: ["LinuxSystem"], swiftSettings: optimized),
        room(
            "QMP",
            [
                "LinuxSystem", logging,
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),

        // Who is there.
        room("Connections", ["PageProtocol", "LinuxSystem", logging]),

        // Memory moves.
        room("SourceAgent", ["PageProtocol", "LinuxSystem"]),
        room("DestinationAgent", ["PageProtocol", "LinuxSystem", "Telemetry"]),

        room("Snapshots", ["SourceAgent", "Connections", "PageProtocol", "LinuxSystem", logging]),

        room(
            "Bench",
            [
                "SourceAgent", "DestinationAgent", "PageProtocol", "LinuxSystem", "Outside", "Telemetry",
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ]
        ),

        // What can be moved.
        room("Workloads", ["Guest", "LinuxSystem", "Outside", "Telemetry"]),
        .target(name: "KVMGuestCode"),
        room("KVMGuest", ["Guest", "KVMGuestCode", "LinuxSystem", "Telemetry"]),
        room("Attachments", ["Guest", "LinuxSystem", "Telemetry", logging]),
        room(
            "FaultHandler",
            [
                "Attachments", "Connections", "DestinationAgent", "PageProtocol", "LinuxSystem", "Outside", "Telemetry",
                "WorkingSet", logging,
            ]
        ),

        room(
            "Firecracker",
            [
                "LinuxSystem",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),

        room(
            "MicroVMGuest",
            ["Attachments", "Firecracker", "Guest", "LinuxSystem", "Outside", "Telemetry", logging]
        ),

        // Who runs.
        room("RunLease", ["LinuxSystem"]),
        room(
            "Controller",
            [
                "Connections", "SourceAgent", "DestinationAgent", "Switchover", "RunLease", "QMP", "Guest", "Outside",
                "PageProtocol", "LinuxSystem", "Telemetry", logging,
            ]
        ),
        room("Orchestration", ["LinuxSystem", "QMP", "Telemetry"]),
        .executableTarget(
            name: "pageferry",
            dependencies: [
                "Attachments", "Bench", "Controller", "DestinationAgent", "FaultHandler", "Guest", "KVMGuest",
                "LinuxSystem", "MicroVMGuest", "Orchestration", "Outside", "PageProtocol", "QMP", "RunLease",
                "Snapshots", "Switchover", "Telemetry", "WorkingSet", "Workloads", logging,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            swiftSettings: settings
        ),

        .target(name: "OwnThread", path: "Tests/OwnThread", swiftSettings: settings),
        .target(name: "LogLines", dependencies: [logging], path: "Tests/LogLines", swiftSettings: settings),
        .target(
            name: "LandedGuest",
            dependencies: ["Guest", "LinuxSystem"],
            path: "Tests/LandedGuest",
            swiftSettings: settings
        ),
        .target(
            name: "TestProcess",
            dependencies: ["LinuxSystem", .product(name: "SystemPackage", package: "swift-system")],
            path: "Tests/TestProcess",
            swiftSettings: settings
        ),
        .target(name: "HugePages", dependencies: ["LinuxSystem"], path: "Tests/HugePages", swiftSettings: settings),
        .target(
            name: "FirecrackerRig",
            dependencies: ["Firecracker", "LinuxSystem", "TestProcess"],
            path: "Tests/FirecrackerRig",
            swiftSettings: settings
        ),
        tests(of: "Firecracker", ["FirecrackerRig", "HugePages", "LinuxSystem", "OwnThread"]),
        tests(
            of: "LinuxSystem",
            ["HugePages", "OwnThread", "TestProcess", .product(name: "SystemPackage", package: "swift-system")]
        ),
        tests(of: "Outside"),
        tests(of: "Guest", ["TestProcess"]),
        tests(of: "Telemetry"),
        tests(of: "Workloads", ["Guest", "LandedGuest", "LinuxSystem", "Telemetry"]),
        tests(of: "KVMGuest", ["Guest", "LandedGuest", "LinuxSystem"]),
        tests(of: "MicroVMGuest", ["Firecracker", "Guest", "LinuxSystem", "TestProcess", logging]),
        .target(name: "PrivateMount", path: "Tests/PrivateMount", cSettings: [.define("_GNU_SOURCE")]),
        tests(
            of: "RunLease",
            ["LinuxSystem", "OwnThread", "PrivateMount", .product(name: "SystemPackage", package: "swift-system")]
        ),
        tests(of: "PageProtocol"),
        tests(of: "WorkingSet", ["LinuxSystem"]),
        .testTarget(name: "SwitchoverTests", dependencies: ["Switchover"], swiftSettings: optimized),
        tests(of: "QMP", ["LinuxSystem"]),
        .testTarget(
            name: "AgentTests",
            dependencies: [
                "SourceAgent", "DestinationAgent", "PageProtocol", "LinuxSystem", "HugePages", "OwnThread",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SnapshotClient",
            dependencies: ["Connections", "LinuxSystem", "PageProtocol"],
            path: "Tests/SnapshotClient",
            swiftSettings: settings
        ),
        tests(
            of: "Snapshots",
            ["DestinationAgent", "LinuxSystem", "LogLines", "OwnThread", "PageProtocol", "SnapshotClient", logging]
        ),
        tests(
            of: "Attachments",
            [
                "Guest", "LandedGuest", "LinuxSystem", "HugePages", "LogLines", "OwnThread", "TestProcess", logging,
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
        tests(
            of: "Controller",
            [
                "Connections", "Guest", "LinuxSystem", "LogLines", "OwnThread", "PageProtocol", "QMP", "RunLease",
                "Switchover",
                "Telemetry", logging,
            ]
        ),
        .testTarget(
            name: "HostileInputTests",
            dependencies: [
                "Attachments", "Controller", "FaultHandler", "Firecracker", "Guest", "KVMGuest", "LinuxSystem",
                "MicroVMGuest", "PageProtocol", "QMP", "Telemetry", "WorkingSet", "Workloads",
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "pageferry", "Connections", "Firecracker", "FirecrackerRig", "LinuxSystem", "OwnThread", "PageProtocol",
                "SnapshotClient",
                "HugePages", "TestProcess", "WorkingSet", logging,
            ],
            swiftSettings: settings
        ),
    ]
)
